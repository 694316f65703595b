package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

var le = binary.LittleEndian

// sample images, each the least that its detector takes

func sampleQcow2(t testing.TB, edit func(*qcow2.Header)) []byte {
	t.Helper()
	var b bytes.Buffer
	disk := block.FromReaderAt(bytes.NewReader(bytes.Repeat([]byte("disk"), 1<<14)), 1<<16)
	if err := qcow2.Encode(t.Context(), &b, disk, qcow2.EncodeOptions{}); err != nil {
		t.Fatal(err)
	}
	h, err := qcow2.DecodeHeader(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(h)
	}
	head, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	copy(b.Bytes(), head)
	return b.Bytes()
}

const goodDescriptor = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n" +
	"# Extent description\nRW 4096 SPARSE \"disk.vmdk\"\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"ide\"\n"

func sampleVmdk(descriptor string) []byte {
	b := make([]byte, 64<<10)
	copy(b, "KDMV")
	le.PutUint32(b[4:], 1)
	le.PutUint64(b[12:], 4096)
	le.PutUint64(b[20:], 128)
	le.PutUint64(b[28:], 1)
	le.PutUint64(b[36:], 20)
	le.PutUint32(b[44:], 512)
	le.PutUint64(b[56:], 26)
	copy(b[512:], descriptor)
	return b
}

// sampleStream is the shape of VMware's streams: what the header lacks stands
// in a footer.
func sampleStream(edit func(footer []byte)) []byte {
	b := sampleVmdk(strings.Replace(goodDescriptor, "monolithicSparse", "streamOptimized", 1))
	le.PutUint64(b[56:], 1<<64-1)
	footer := bytes.Clone(b[:512])
	le.PutUint64(footer[56:], 77)
	edit(footer)
	b = append(b, make([]byte, 512)...)
	b = append(b, footer...)
	return append(b, make([]byte, 512)...)
}

func sampleVhdFixed(size int64, kind uint32) []byte {
	f := make([]byte, 512)
	copy(f, "conectix")
	binary.BigEndian.PutUint32(f[12:], 1<<16)
	copy(f[28:], "qem2")
	binary.BigEndian.PutUint64(f[48:], uint64(size))
	binary.BigEndian.PutUint32(f[60:], kind)
	var sum uint32
	for _, c := range f {
		sum += uint32(c)
	}
	binary.BigEndian.PutUint32(f[64:], ^sum)
	return append(make([]byte, size), f...)
}

func sampleVdi() []byte {
	b := make([]byte, 4096)
	le.PutUint32(b[64:], 0xbeda107f)
	le.PutUint32(b[68:], 0x00010001)
	le.PutUint32(b[76:], 1)
	le.PutUint32(b[360:], 512)
	le.PutUint64(b[368:], 3<<20)
	le.PutUint32(b[376:], 1<<20)
	le.PutUint32(b[384:], 3)
	return b
}

func sampleIso() []byte {
	b := make([]byte, 60<<10)
	copy(b[32768:], "\x01CD001\x01")
	le.PutUint32(b[32768+80:], 30)
	le.PutUint16(b[32768+128:], 2048)
	return b
}

func sampleMBR(b []byte) []byte {
	b = bytes.Clone(b)
	copy(b[446:], []byte{0x80, 1, 1, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0})
	copy(b[510:], "\x55\xaa")
	return b
}

func samplePloop() []byte {
	b := make([]byte, 1<<12)
	copy(b, "WithouFreSpacExt")
	le.PutUint32(b[16:], 2)
	le.PutUint32(b[28:], 2048)
	le.PutUint64(b[36:], 100)
	return b
}

func sampleKernel() []byte {
	b := sampleMBR(make([]byte, 4096))
	copy(b[514:], "HdrS")
	return b
}

// inspect writes b in pieces of n bytes.
func inspect(b []byte, cfg InspectorConfig, n int) (Verdict, error) {
	in := NewInspector(cfg)
	if _, err := io.CopyBuffer(struct{ io.Writer }{in}, struct{ io.Reader }{bytes.NewReader(b)}, make([]byte, n)); err != nil {
		return Verdict{}, err
	}
	return in.Finish()
}

func TestInspector(t *testing.T) {
	noise := make([]byte, 100<<10)
	for i := range noise {
		noise[i] = byte(rand.New(rand.NewPCG(1, uint64(i))).Uint32()) | 1
	}
	disk := sampleMBR(make([]byte, 64<<10))
	q := sampleQcow2(t, nil)
	edited := func(edit func(*qcow2.Header)) []byte { return sampleQcow2(t, edit) }
	descriptor := func(old, new string) []byte { return sampleVmdk(strings.Replace(goodDescriptor, old, new, 1)) }
	for _, c := range []struct {
		name, declared string
		b              []byte
		size           int64  // of the disk, if accepted
		refused        string // part of the reason, "" if accepted
	}{
		{"qcow2", "qcow2", q, 1 << 16, ""},
		{"qcow2, unknown declaration", "", q, 1 << 16, ""},
		{"qcow2, extended L2", "qcow2", edited(func(h *qcow2.Header) { h.Incompatible |= qcow2.ExtendedL2 }), 1 << 16, ""},
		{"qcow2 as vmdk", "vmdk", q, 0, "not of the declared format"},
		{"qcow2 as ami", "ami", q, 0, "of another format"},
		{"qcow2 as raw", "raw", q, int64(len(q)), ""},
		{"noise as qcow2", "qcow2", noise, 0, "not of the declared format"},
		{"nothing as qcow2", "qcow2", nil, 0, "not of the declared format"},
		{"nothing as raw", "raw", nil, 0, ""},
		{"noise as raw", "raw", noise, int64(len(noise)), ""},
		{"disk as raw", "raw", disk, int64(len(disk)), ""},
		{"disk as gpt", "gpt", disk, int64(len(disk)), ""},
		{"noise as gpt", "gpt", noise, 0, "not of the declared format"},
		{"backing file", "qcow2", edited(func(h *qcow2.Header) { h.Backing = "/etc/passwd" }), 0, "backing file"},
		{"backing file as raw", "raw", edited(func(h *qcow2.Header) { h.Backing = "/etc/passwd" }), 0, "backing file"},
		{"data file", "qcow2", edited(func(h *qcow2.Header) { h.Incompatible |= qcow2.DataFile }), 0, "data file"},
		{"data file as raw", "raw", edited(func(h *qcow2.Header) { h.Incompatible |= qcow2.DataFile }), 0, "data file"},
		{"unknown bit", "qcow2", edited(func(h *qcow2.Header) { h.Incompatible |= 1 << 33 }), 0, "unknown incompatible"},
		{"corrupt bit", "qcow2", edited(func(h *qcow2.Header) { h.Incompatible |= qcow2.CorruptBit }), 0, "corrupt"},
		{"header cut off", "qcow2", q[:50], 0, "cut off"},
		{"qcow version 1", "raw", append([]byte("QFI\xfb\x00\x00\x00\x01"), noise...), 0, "version 1"},
		{"qed", "raw", append([]byte("QED\x00"), noise...), 0, "no longer maintained"},
		{"vmdk", "vmdk", sampleVmdk(goodDescriptor), 2 << 20, ""},
		{"vmdk, stream", "vmdk", sampleStream(func([]byte) {}), 2 << 20, ""},
		{"vmdk, stream with another footer", "vmdk", sampleStream(func(f []byte) { f[28] = 9 }), 0, "at the end"},
		{"vmdk, stream cut off", "vmdk", sampleStream(func([]byte) {})[:64<<10], 0, "at the end"},
		{"vmdk, flat", "vmdk", descriptor("SPARSE", "FLAT"), 0, "FLAT"},
		{"vmdk, flat as raw", "raw", descriptor("SPARSE", "FLAT"), 0, "FLAT"},
		{"vmdk, path", "vmdk", descriptor("disk.vmdk", "/etc/passwd"), 0, "path"},
		{"vmdk, two extents", "vmdk", descriptor("RW 4096", "RW 1 SPARSE \"a\"\nRW 4096"), 0, "2 extents"},
		{"vmdk, parent", "vmdk", descriptor("ffffffff", "12345678"), 0, "parent"},
		{"vmdk, parent's name", "vmdk", descriptor("version=1", "version=1\nparentFileNameHint=\"x\""), 0, "another file"},
		{"vmdk, type in a comment", "vmdk", descriptor("createType", "# createType"), 0, "createType"},
		{"vmdk, type twice", "vmdk", descriptor("# Extent", "# createType=\"x\""), 0, "more than once"},
		{"vmdk, other type", "vmdk", descriptor("monolithicSparse", "twoGbMaxExtentSparse"), 0, "createType"},
		{"vmdk, no descriptor", "vmdk", sampleVmdk(""), 0, "createType"},
		{"vmdk, text only", "vmdk", []byte(goodDescriptor), 0, "other files"},
		{"vmdk, text only, as raw", "raw", []byte(goodDescriptor), 0, "other files"},
		{"vmdk, old", "raw", append([]byte("COWD"), noise...), 0, "old server"},
		{"vhd, fixed", "vhd", sampleVhdFixed(4096, 2), 4096, ""},
		{"vhd, by its other name", "vpc", sampleVhdFixed(4096, 2), 4096, ""},
		{"vhd, fixed, of a disk", "vhd", sampleMBR(sampleVhdFixed(4096, 2)), 4096, ""},
		{"vhd, differencing", "vhd", sampleVhdFixed(4096, 4), 0, "only a footer"},
		{"vhd, cut off", "vhd", sampleVhdFixed(4096, 2)[:4000], 0, "not of the declared format"},
		{"vdi", "vdi", sampleVdi(), 3 << 20, ""},
		{"iso", "iso", sampleIso(), 60 << 10, ""},
		{"iso that boots from a stick", "iso", sampleMBR(sampleIso()), 60 << 10, ""},
		{"iso that boots, as gpt", "gpt", sampleMBR(sampleIso()), 0, "not of the declared format"},
		{"iso that boots, as raw", "raw", sampleMBR(sampleIso()), 60 << 10, ""},
		{"iso and vdi", "iso", append(sampleVdi(), sampleIso()[4096:]...), 0, "format"},
		{"iso and vdi, as raw", "raw", append(sampleVdi(), sampleIso()[4096:]...), 0, "several formats"},
		{"iso and vhd", "vhd", append(sampleIso(), sampleVhdFixed(512, 2)[512:]...), 0, "format"},
		{"kernel", "aki", sampleKernel(), 4096, ""},
		{"disk as aki", "aki", disk, 0, "of another format"},
		{"noise as ari", "ari", noise, int64(len(noise)), ""},
		{"ploop", "ploop", samplePloop(), 51200, ""},
		{"noise as ploop", "ploop", noise, -1, ""},
		{"luks 1 as raw", "raw", append([]byte("LUKS\xba\xbe\x00\x01"), noise...), int64(len(noise)) + 8, ""},
		{"luks 2 as raw", "raw", append([]byte("LUKS\xba\xbe\x00\x02"), noise...), 0, "LUKS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, piece := range []int{1 << 20, 32 << 10, 511, 7} {
				v, err := inspect(c.b, InspectorConfig{Declared: c.declared, RequireMatch: true}, piece)
				if c.refused != "" {
					var r *Refusal
					if !errors.As(err, &r) || !strings.Contains(r.Reason, c.refused) {
						t.Fatalf("in pieces of %d: %v, want a refusal with %q", piece, err, c.refused)
					}
					continue
				}
				if err != nil || v.VirtualSize != c.size {
					t.Fatalf("in pieces of %d: %+v, %v; want size %d", piece, v, err, c.size)
				}
			}
		})
	}
}

func TestInspectorSettings(t *testing.T) {
	q := sampleQcow2(t, nil)
	for _, c := range []struct {
		cfg     InspectorConfig
		b       []byte
		format  string
		refused bool
	}{
		{InspectorConfig{Declared: "vmdk"}, q, "vmdk", false},
		{InspectorConfig{Declared: "raw", Strict: true}, q, "", true},
		{InspectorConfig{Declared: "raw", Strict: true}, sampleMBR(make([]byte, 4096)), "raw", false},
		{InspectorConfig{}, q, "qcow2", false},
		{InspectorConfig{}, make([]byte, 100), "raw", false},
		{InspectorConfig{Declared: "vmdk", Container: "ova", RequireMatch: true}, q, "vmdk", false},
		{InspectorConfig{Declared: "vmdk", Container: "bare", RequireMatch: true}, q, "", true},
	} {
		v, err := inspect(c.b, c.cfg, 4096)
		if (err != nil) != c.refused || v.Format != c.format {
			t.Errorf("%+v: %+v, %v", c.cfg, v, err)
		}
	}
}

// A wrong format is refused long before its end, and memory stays small.
func TestInspectorEarlyAndSmall(t *testing.T) {
	in := NewInspector(InspectorConfig{Declared: "qcow2", RequireMatch: true})
	if n, err := in.Write(make([]byte, 64<<10)); err == nil || n != 0 {
		t.Errorf("%d bytes taken, %v", n, err)
	}
	if _, err := in.Finish(); err == nil {
		t.Error("refused, but finished")
	}
	in = NewInspector(InspectorConfig{Declared: "raw"})
	p := make([]byte, 1<<20)
	for range 64 {
		if _, err := in.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if n := cap(in.ev.head) + cap(in.ev.tail) + cap(in.ev.part); n > 3<<20 {
		t.Errorf("%d bytes kept", n)
	}
}

func TestVerify(t *testing.T) {
	q := sampleQcow2(t, nil)
	open := func(b []byte) block.Reader { return block.FromReaderAt(bytes.NewReader(b), int64(len(b))) }
	if err := Verify(t.Context(), "qcow2", open(q)); err != nil {
		t.Error(err)
	}
	var r *Refusal
	if err := Verify(t.Context(), "qcow2", open(q[:len(q)-(64<<10)])); !errors.As(err, &r) {
		t.Errorf("cut off: %v", err)
	}
	if err := Verify(t.Context(), "raw", open(nil)); err != nil {
		t.Error(err)
	}
	if _, ok := ByName("raw"); ok {
		t.Error("raw is no format")
	}
	f, ok := ByName("qcow2")
	if !ok || !f.Probe(q) {
		t.Fatal("no qcow2")
	}
	if im, err := f.Open(t.Context(), open(q[:20])); err == nil || im != nil {
		t.Errorf("%v, %v", im, err)
	}
}

// The answer must not depend on how the bytes arrive. As in the fuzz test of
// qcow2, the input is edits of 12 bytes to a good image.
func FuzzInspector(f *testing.F) {
	samples := [][]byte{sampleQcow2(f, nil)[:2048], sampleVmdk(goodDescriptor)[:4096], sampleVhdFixed(512, 2), sampleVdi(), sampleKernel(), samplePloop(), sampleIso(), {}}
	names := []string{"", "raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "gpt", "ami", "ploop"}
	for i := range samples {
		f.Add(uint8(i), uint8(i+1), uint16(100), []byte("\x00\x00\x02\x10\x03abcdefg"))
		f.Add(uint8(i), uint8(1), uint16(1000), []byte("\x00\x00\x00\x00\x07conecti"))
	}
	f.Fuzz(func(t *testing.T, which, declared uint8, piece uint16, edits []byte) {
		b := append(bytes.Clone(samples[int(which)%len(samples)]), edits...)
		for ; len(edits) >= 12 && len(b) > 0; edits = edits[12:] {
			copy(b[int(binary.BigEndian.Uint32(edits))%len(b):], edits[5:6+edits[4]%7])
		}
		cfg := InspectorConfig{Declared: names[int(declared)%len(names)], RequireMatch: declared&128 == 0, Strict: declared&64 != 0}
		one, err1 := inspect(b, cfg, 1<<20)
		two, err2 := inspect(b, cfg, 64+int(piece))
		if fmt.Sprint(one) != fmt.Sprint(two) || (err1 == nil) != (err2 == nil) {
			t.Fatalf("at once %+v, %v; in pieces %+v, %v", one, err1, two, err2)
		}
	})
}
