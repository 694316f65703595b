package http

import (
	"net/http"
	"net/netip"
	"testing"
)

// FuzzContentRange: what is accepted is a range inside its object.
func FuzzContentRange(f *testing.F) {
	for _, text := range []string{"bytes 0-0/1", "bytes 5-9/*", "bytes */0", "bytes 9-5/10", "bytes -1-5/6", "bytes 0-9223372036854775807/*", "items 0-1/2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		first, last, size, err := contentRange(http.Header{"Content-Range": {text}})
		if err == nil && (first < 0 || last < first || size >= 0 && last >= size || size < -1) {
			t.Fatalf("%q is %d-%d of %d", text, first, last, size)
		}
	})
}

// FuzzPublic: an address that is local in one form is local in every other.
func FuzzPublic(f *testing.F) {
	for _, text := range []string{"127.0.0.1", "10.1.2.3", "8.8.8.8", "169.254.169.254", "100.64.0.1"} {
		a := netip.MustParseAddr(text).As4()
		f.Add(a[0], a[1], a[2], a[3])
	}
	f.Fuzz(func(t *testing.T, a, b, c, d byte) {
		v4 := netip.AddrFrom4([4]byte{a, b, c, d})
		mapped := netip.AddrFrom16(v4.As16())
		if public(v4) != public(mapped) {
			t.Fatalf("%v and %v", v4, mapped)
		}
		for _, prefix := range []string{"64:ff9b::", "2002::", "::"} {
			p := netip.MustParseAddr(prefix).As16()
			at := map[string]int{"2002::": 2}[prefix]
			if at == 0 {
				at = 12
			}
			copy(p[at:], []byte{a, b, c, d})
			if public(netip.AddrFrom16(p)) {
				t.Fatalf("%v hides %v", netip.AddrFrom16(p), v4)
			}
		}
	})
}
