package attach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"

	"github.com/seed-478a8fee/platter/nbd/client"
)

// The numbers of linux/nbd-netlink.h, in its words.
const (
	familyName    = "nbd"
	familyVersion = 1
	groupName     = "nbd_mc_group"

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3
	cmdLinkDead    = 4
	cmdStatus      = 5

	attrIndex       = 1
	attrSize        = 2
	attrBlockSize   = 3
	attrTimeout     = 4
	attrServerFlags = 5
	attrClientFlags = 6
	attrSockets     = 7
	attrDeadTimeout = 8
	attrDevices     = 9
	attrBackend     = 10

	attrSocket   = 1 // in attrSockets
	attrSocketFD = 1 // in attrSocket

	attrDevice          = 1 // in attrDevices
	attrDeviceIndex     = 1 // in attrDevice
	attrDeviceConnected = 2

	clientDisconnectOnClose = 1 << 1
)

// kernelPatience is how long the kernel may take to answer.
const kernelPatience = 30 * time.Second

// A kernel is a conversation with the nbd module. It is no state of the
// devices: they stay when it is closed.
type kernel struct {
	conn   *genetlink.Conn
	family genetlink.Family
}

// openKernel finds the nbd module.
func openKernel(ctx context.Context) (*kernel, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("nbd: no generic netlink here: %w", err)
	}
	end := time.Now().Add(kernelPatience)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	k := &kernel{conn: conn}
	if err = conn.SetDeadline(end); err == nil {
		k.family, err = conn.GetFamily(familyName)
	}
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("nbd: this kernel has no nbd devices: load the module with \"modprobe nbd\"; in a container, do that and this on the host: %w", errors.ErrUnsupported)
	default:
		err = fmt.Errorf("nbd: ask the kernel for nbd: %w", err)
	}
	conn.Close()
	return nil, err
}

func (k *kernel) close() { k.conn.Close() }

// ask sends one command and returns the answer to it.
func (k *kernel) ask(cmd uint8, flags netlink.HeaderFlags, data []byte, err error) ([]genetlink.Message, error) {
	if err != nil {
		return nil, err
	}
	return k.conn.Execute(genetlink.Message{Header: genetlink.Header{Command: cmd, Version: familyVersion}, Data: data}, k.family.ID, netlink.Request|flags)
}

// connect makes a device of sockets that are past the handshake and returns
// its number.
func (k *kernel) connect(index int64, cfg Config, e export, links []*os.File) (uint32, error) {
	data, err := connectRequest(index, cfg, e, links)
	answer, err := k.ask(cmdConnect, 0, data, err) // it has an answer, which an ACK would follow
	if errors.Is(err, syscall.EBUSY) {
		return 0, busyError(cfg.Device)
	}
	if err != nil {
		return 0, told("connect", cfg.Device, err)
	}
	for _, m := range answer {
		if got, ok := messageIndex(m); ok && m.Header.Command == cmdConnect {
			return got, nil
		}
	}
	return 0, errors.New("nbd: the kernel does not say which device it has connected")
}

// reconfigure gives a device sockets in place of those that are dead.
func (k *kernel) reconfigure(index uint32, cfg Config, links []*os.File) error {
	enc := netlink.NewAttributeEncoder()
	enc.Uint32(attrIndex, index)
	enc.String(attrBackend, cfg.identity())
	sockets(enc, links)
	data, err := enc.Encode()
	_, err = k.ask(cmdReconfigure, netlink.Acknowledge, data, err)
	return told("reconnect", devicePath(index), err)
}

func (k *kernel) disconnect(index uint32) error {
	enc := netlink.NewAttributeEncoder()
	enc.Uint32(attrIndex, index)
	data, err := enc.Encode()
	_, err = k.ask(cmdDisconnect, netlink.Acknowledge, data, err)
	return told("disconnect", devicePath(index), err)
}

// connected tells whether a device is connected. One that was disconnected
// while in use still is.
func (k *kernel) connected(index uint32) (bool, error) {
	enc := netlink.NewAttributeEncoder()
	enc.Uint32(attrIndex, index)
	data, err := enc.Encode()
	answer, err := k.ask(cmdStatus, 0, data, err)
	if err != nil {
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENODEV) {
			return false, nil // there is no such device yet
		}
		return false, told("look at", devicePath(index), err)
	}
	for _, m := range answer {
		if on, ok := deviceState(m.Data, index); ok {
			return on, nil
		}
	}
	return false, nil
}

// connectRequest makes the request for a device.
func connectRequest(index int64, cfg Config, e export, links []*os.File) ([]byte, error) {
	enc := netlink.NewAttributeEncoder()
	if index != anyDevice {
		enc.Uint32(attrIndex, uint32(index))
	}
	flags := e.Flags & kernelFlags
	if cfg.ReadOnly {
		flags |= client.FlagReadOnly
	}
	enc.Uint64(attrSize, uint64(e.bytes()))
	enc.Uint64(attrBlockSize, uint64(e.sectorSize()))
	enc.Uint64(attrTimeout, seconds(cfg.Timeout))
	enc.Uint64(attrDeadTimeout, seconds(cfg.DeadConnTimeout))
	enc.Uint64(attrServerFlags, uint64(flags))
	if cfg.DisconnectOnClose {
		enc.Uint64(attrClientFlags, clientDisconnectOnClose)
	}
	enc.String(attrBackend, cfg.identity())
	sockets(enc, links)
	return enc.Encode()
}

// sockets adds the list of sockets.
func sockets(enc *netlink.AttributeEncoder, links []*os.File) {
	enc.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
		for _, f := range links {
			list.Nested(attrSocket, func(item *netlink.AttributeEncoder) error {
				item.Uint32(attrSocketFD, uint32(f.Fd()))
				return nil
			})
		}
		return nil
	})
}

// seconds rounds up: 0 would mean no limit.
func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }

// messageIndex returns the number of the device that a message is about.
func messageIndex(m genetlink.Message) (index uint32, ok bool) {
	dec, err := netlink.NewAttributeDecoder(m.Data)
	if err != nil {
		return 0, false
	}
	for dec.Next() {
		if dec.Type() == attrIndex {
			index, ok = dec.Uint32(), true
		}
	}
	return index, ok && dec.Err() == nil
}

// deviceState finds a device in an answer about the state of devices.
func deviceState(data []byte, index uint32) (on, found bool) {
	dec, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return false, false
	}
	for dec.Next() {
		if dec.Type() != attrDevices {
			continue
		}
		dec.Nested(func(list *netlink.AttributeDecoder) error {
			for list.Next() {
				list.Nested(func(item *netlink.AttributeDecoder) error {
					var number uint32
					var connected bool
					for item.Next() {
						switch item.Type() {
						case attrDeviceIndex:
							number = item.Uint32()
						case attrDeviceConnected:
							connected = item.Uint8() != 0
						}
					}
					if number == index && item.Err() == nil {
						on, found = connected, true
					}
					return nil
				})
			}
			return nil
		})
	}
	return on, found
}

// told says what the kernel did not do, and why that may be.
func told(what, device string, err error) error {
	if device == "" {
		device = "a device"
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("nbd: %s %s: %w; run this as root, outside of a container", what, device, fs.ErrPermission)
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("nbd: %s %s: %w; the kernel's log (dmesg) says why", what, device, err)
	}
	return fmt.Errorf("nbd: %s %s: %w", what, device, err)
}

func busyError(device string) error {
	return fmt.Errorf("nbd: %s is in use: %w; name another device, or none to get one that is free; \"platter detach %s\" or \"nbd-client -d %s\" disconnects it",
		device, syscall.EBUSY, device, device)
}

// backend returns what the kernel has as the name of a device's backend, ""
// if it does not tell.
func backend(index uint32) string {
	text, err := os.ReadFile(fmt.Sprintf("/sys/block/nbd%d/backend", index))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(text), "\n\x00")
}

// A listener hears when the kernel gives a connection up.
type listener struct {
	*kernel
	once sync.Once
}

func listen() (*listener, error) {
	k, err := openKernel(context.Background())
	if err != nil {
		return nil, err
	}
	for _, g := range k.family.Groups {
		if g.Name != groupName {
			continue
		}
		if err := k.conn.JoinGroup(g.ID); err != nil {
			k.close()
			return nil, fmt.Errorf("nbd: join the group that hears of dead connections: %w", err)
		}
		return &listener{kernel: k}, nil
	}
	k.close()
	return nil, fmt.Errorf("nbd: this kernel does not tell of dead connections: use a newer one: %w", errors.ErrUnsupported)
}

func (l *listener) close() error {
	var err error
	l.once.Do(func() { err = l.conn.Close() })
	return err
}

// hear calls lost for each connection of a device that the kernel gives up,
// until ctx ends. When messages were lost it calls it, too.
func (l *listener) hear(ctx context.Context, index uint32, lost func()) error {
	if err := l.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		messages, _, err := l.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, syscall.ENOBUFS):
			lost()
		case err != nil:
			return fmt.Errorf("nbd: listen for dead connections: %w", err)
		}
		for _, m := range messages {
			if got, ok := messageIndex(m); ok && got == index && m.Header.Command == cmdLinkDead {
				lost()
			}
		}
	}
}
