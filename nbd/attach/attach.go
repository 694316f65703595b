package attach

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/seed-478a8fee/platter/nbd/client"
)

// Config says what to connect and how.
type Config struct {
	Network string // "unix" or "tcp"
	Address string // the socket's path, or host and port
	Export  string // its name; may be a secret

	// Device is the device to use, such as "/dev/nbd3"; "" lets the kernel
	// take one that is free.
	Device string

	// ReadOnly makes the device read-only, also where the export is not.
	ReadOnly bool

	// Connections is how many the device has, 1 by default and at most 16.
	// More than one needs a server that says CAN_MULTI_CONN.
	Connections int

	// Timeout is how old a request gets before the kernel gives its connection
	// up and repeats it on another; 30 s by default, whole seconds.
	Timeout time.Duration

	// DeadConnTimeout is how long requests wait for a new connection before
	// they fail; 60 s by default, whole seconds.
	DeadConnTimeout time.Duration

	// HandshakeTimeout is how long connecting to the server and agreeing with
	// it may take; 10 s by default.
	HandshakeTimeout time.Duration

	// DisconnectOnClose lets the kernel disconnect the device when its last
	// user closes it. Programs that only look at new devices are users, too.
	DisconnectOnClose bool

	Logger *slog.Logger // nil is silence
}

const maxConnections = 16

// prepare fills in the defaults and refuses what cannot be.
func (c Config) prepare() (Config, error) {
	if c.Network != "unix" && c.Network != "tcp" {
		return c, fmt.Errorf("nbd: no network %q: there are unix and tcp", c.Network)
	}
	if len(c.Export) > client.MaxName {
		return c, fmt.Errorf("nbd: the name of the export has %d bytes: the protocol allows %d", len(c.Export), client.MaxName)
	}
	if c.Connections == 0 {
		c.Connections = 1
	}
	if c.Connections < 0 || c.Connections > maxConnections {
		return c, fmt.Errorf("nbd: %d connections: between 1 and %d are possible", c.Connections, maxConnections)
	}
	for _, d := range []struct {
		value *time.Duration
		usual time.Duration
	}{{&c.Timeout, 30 * time.Second}, {&c.DeadConnTimeout, time.Minute}, {&c.HandshakeTimeout, 10 * time.Second}} {
		if *d.value == 0 {
			*d.value = d.usual
		}
		if *d.value < 0 {
			return c, fmt.Errorf("nbd: a timeout of %v", *d.value)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// identity is what the kernel keeps as the name of the backend. Everybody can
// read it there, so it is a digest.
func (c Config) identity() string {
	sum := sha256.Sum256([]byte(c.Network + "\x00" + c.Address + "\x00" + c.Export))
	return "platter-" + hex.EncodeToString(sum[:16])
}

// A Device is a connected /dev/nbd device.
type Device struct {
	Path     string // such as "/dev/nbd3"
	Size     int64  // in bytes
	ReadOnly bool

	cfg    Config
	index  uint32
	export export
	events *listener

	mu    sync.Mutex
	links []*os.File // the kernel's sockets: here only to see whether they live
}

// Connect connects an export to a device, which is there when it returns. The
// device stays until somebody disconnects it, also when this process ends; but
// who does not call [Device.Keep] finds it broken after the first outage.
func Connect(ctx context.Context, cfg Config) (*Device, error) {
	cfg, err := cfg.prepare()
	if err != nil {
		return nil, err
	}
	index := anyDevice
	if cfg.Device != "" {
		if index, err = deviceIndex(cfg.Device); err != nil {
			return nil, err
		}
	}
	k, err := openKernel(ctx)
	if err != nil {
		return nil, err
	}
	defer k.close()
	if index != anyDevice {
		if busy, err := k.connected(uint32(index)); err == nil && busy {
			return nil, busyError(cfg.Device)
		}
	}
	events, err := listen() // before there is something to hear
	if err != nil {
		return nil, err
	}
	links, e, err := cfg.open(ctx, cfg.Connections)
	if err != nil {
		events.close()
		return nil, err
	}
	d := &Device{cfg: cfg, export: e, events: events, links: links, Size: e.bytes(), ReadOnly: cfg.ReadOnly || e.Flags&client.FlagReadOnly != 0}
	if d.index, err = k.connect(index, cfg, e, links); err == nil {
		d.Path = devicePath(d.index)
		if err = appears(ctx, d.Path); err != nil {
			err = errors.Join(err, k.disconnect(d.index))
		}
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Disconnect disconnects the device. Requests under way fail: its users must
// have finished.
func (d *Device) Disconnect(ctx context.Context) error {
	if !d.ours() {
		return nil
	}
	err := Disconnect(ctx, d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Close gives up watching the device, which stays as it is.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	closeAll(d.links)
	d.links = nil
	return d.events.close()
}

// Disconnect disconnects the device at path. If it is not connected the error
// is fs.ErrNotExist. A device that is in use answers no more requests, and is
// free when its last user has closed it.
func Disconnect(ctx context.Context, path string) error {
	return with(ctx, path, func(k *kernel, index uint32) error {
		on, err := k.connected(index)
		if err != nil {
			return err
		}
		if !on {
			return fmt.Errorf("nbd: %s is not connected: %w", path, fs.ErrNotExist)
		}
		return k.disconnect(index)
	})
}

// Connected tells whether the device at path is connected.
func Connected(ctx context.Context, path string) (on bool, err error) {
	err = with(ctx, path, func(k *kernel, index uint32) error {
		on, err = k.connected(index)
		return err
	})
	return on, err
}

func with(ctx context.Context, path string, do func(k *kernel, index uint32) error) error {
	index, err := deviceIndex(path)
	if err != nil {
		return err
	}
	k, err := openKernel(ctx)
	if err != nil {
		return err
	}
	defer k.close()
	return do(k, uint32(index))
}

// anyDevice is the index that lets the kernel choose.
const anyDevice int64 = -1

var deviceName = regexp.MustCompile(`^/dev/nbd(0|[1-9][0-9]{0,6})$`)

// deviceIndex returns the number in the name of a device.
func deviceIndex(path string) (int64, error) {
	m := deviceName.FindStringSubmatch(path)
	if m == nil {
		return 0, fmt.Errorf("nbd: %q is no nbd device: they are called /dev/nbd0, /dev/nbd1 and so on", path)
	}
	return strconv.ParseInt(m[1], 10, 32)
}

func devicePath(index uint32) string { return fmt.Sprintf("/dev/nbd%d", index) }

// appears waits until a device node is there, at most 5 s: one that the kernel
// has just made may take a moment.
func appears(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nbd: the kernel has the device, but its node is missing: %w; mount devtmpfs on /dev, or let udev make it", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
