package attach

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
)

// TestConnectRequest reads back what is sent to the kernel, which the tests in
// a guest show to a real one.
func TestConnectRequest(t *testing.T) {
	var links []*os.File
	for range 2 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		links = append(links, f)
	}
	cfg := configured(t, Config{Network: "tcp", Address: "h:1", Export: "secret", ReadOnly: true, Timeout: 1500 * time.Millisecond, DisconnectOnClose: true})
	data, err := connectRequest(7, cfg, export{Size: 1<<20 + 513, Flags: 0xffff, Minimum: 4096}, links)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "secret") {
		t.Error("the request tells the name of the export, and everybody can read that")
	}
	numbers := map[uint16]uint64{}
	var fds []int
	var name string
	dec, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		t.Fatal(err)
	}
	for dec.Next() {
		switch dec.Type() {
		case attrIndex:
			numbers[attrIndex] = uint64(dec.Uint32())
		case attrBackend:
			name = dec.String()
		case attrSockets:
			dec.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(func(item *netlink.AttributeDecoder) error {
						for item.Next() {
							fds = append(fds, int(item.Uint32()))
						}
						return nil
					})
				}
				return nil
			})
		default:
			numbers[dec.Type()] = dec.Uint64()
		}
	}
	if err := dec.Err(); err != nil {
		t.Fatal(err)
	}
	for attr, want := range map[uint16]uint64{attrIndex: 7, attrSize: 1 << 20, attrBlockSize: 4096, attrTimeout: 2, attrDeadTimeout: 60,
		attrServerFlags: kernelFlags, attrClientFlags: clientDisconnectOnClose} {
		if numbers[attr] != want {
			t.Errorf("attribute %d is %d, want %d", attr, numbers[attr], want)
		}
	}
	if want := []int{int(links[0].Fd()), int(links[1].Fd())}; !slices.Equal(fds, want) {
		t.Errorf("sockets %v, want %v", fds, want)
	}
	if name != cfg.identity() {
		t.Errorf("backend %q", name)
	}
	if other := configured(t, Config{Network: "tcp", Address: "h:1", Export: "other"}); other.identity() == name {
		t.Error("two exports have one identity")
	}
	data, err = connectRequest(anyDevice, cfg, export{Size: 1 << 20, Flags: 1}, links)
	if _, has := messageIndex(genetlink.Message{Data: data}); err != nil || has {
		t.Errorf("any device is a certain one: %v", err)
	}
}

func TestDeviceState(t *testing.T) {
	enc := netlink.NewAttributeEncoder()
	enc.Nested(attrDevices, func(list *netlink.AttributeEncoder) error {
		for index := range uint32(3) {
			list.Nested(attrDevice, func(item *netlink.AttributeEncoder) error {
				item.Uint32(attrDeviceIndex, index)
				item.Uint8(attrDeviceConnected, uint8(index&1))
				return nil
			})
		}
		return nil
	})
	data, err := enc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for index, want := range [][2]bool{{false, true}, {true, true}, {false, true}, {false, false}} {
		if on, found := deviceState(data, uint32(index)); on != want[0] || found != want[1] {
			t.Errorf("device %d: %v, %v", index, on, found)
		}
	}
	for n := range data {
		deviceState(data[:n], 1) // cut short: no panic
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		fail string
	}{
		{Config{Network: "udp"}, "unix and tcp"},
		{Config{Network: "unix", Connections: 17}, "between 1 and 16"},
		{Config{Network: "unix", Connections: -1}, "between 1 and 16"},
		{Config{Network: "unix", Timeout: -1}, "timeout of -1ns"},
		{Config{Network: "unix", Export: strings.Repeat("x", 4097)}, "4097 bytes"},
		{Config{Network: "unix", Device: "/dev/nbd0p1"}, "no nbd device"},
		{Config{Network: "unix", Device: "nbd0"}, "no nbd device"},
		{Config{Network: "unix", Device: "/dev/nbd00"}, "no nbd device"},
		{Config{Network: "unix", Device: "/dev/sda"}, "no nbd device"},
	} {
		if _, err := Connect(t.Context(), c.cfg); err == nil || !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		uri, network, address, export, fail string
	}{
		{"nbd://h/a/b", "tcp", "h:10809", "a/b", ""},
		{"nbd://[::1]:5/", "tcp", "[::1]:5", "", ""},
		{"nbd+unix:///attach/T?socket=/run/my%20s", "unix", "/run/my s", "attach/T", ""},
		{"nbds://h/x", "", "", "", "TLS"},
		{"nbds+unix:///x?socket=s", "", "", "", "TLS"},
		{"nbd:///x", "", "", "", "no host"},
		{"nbd+unix:///x", "", "", "", "no socket"},
		{"http://h/x", "", "", "", `"http:"`},
		{"nbd://h:%zz/secret", "", "", "", "no NBD URI"},
	} {
		got, err := Parse(c.uri)
		if c.fail != "" {
			if err == nil || !strings.Contains(err.Error(), c.fail) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v", c.uri, err)
			}
			continue
		}
		if err != nil || got.Network != c.network || got.Address != c.address || got.Export != c.export {
			t.Errorf("%s: %+v, %v", c.uri, got, err)
		}
	}
	if _, err := Parse("nbds://h/x"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("TLS: %v", err)
	}
}

// TestOnThisKernel asks the kernel that there is: one without the nbd module
// has to be told so. The others are looked at in a guest.
func TestOnThisKernel(t *testing.T) {
	_, err := os.Stat("/sys/module/nbd")
	_, got := Connected(t.Context(), "/dev/nbd1000000")
	switch {
	case err == nil && got != nil:
		t.Errorf("with the module: %v", got)
	case err != nil && (!errors.Is(got, errors.ErrUnsupported) || !strings.Contains(got.Error(), "modprobe nbd")):
		t.Errorf("without the module: %v", got)
	}
}
