//go:build integration

package integration

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// flagChecks is about the client's flags, which come before TLS.
func flagChecks() []nbdCheck {
	flags := func(f uint32, padding int) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(f)
			p.option(oExportName, []byte(d.export))
			if size := p.u64(); size != d.size {
				t.Errorf("size %d", size)
			}
			p.u16()
			if b := p.bytes(padding); strings.Trim(string(b), "\x00") != "" {
				t.Errorf("padding %x", b)
			}
			if got := p.read(0, 512); string(got) != string(d.base[:512]) {
				t.Error("then other bytes than the disk's") // also if the padding is longer
			}
		}
	}
	refused := func(f uint32) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) { d.dial(t).greet(f).closed() }
	}
	return []nbdCheck{
		{"client flags 0", "", flags(0, 124)},
		{"client flags fixed newstyle", "", flags(1, 124)},
		{"client flags no zeroes", "", flags(2, 0)},
		{"client flags both", "", flags(3, 0)},
		{"client flag bit 2", "", refused(4)},
		{"client flag bit 15", "", refused(1 << 15)},
		{"client flag bit 31", "", refused(1<<31 | 3)},
	}
}

// greetingChecks is about the shape of options.
func greetingChecks() []nbdCheck {
	return []nbdCheck{
		{"option magic wrong", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.send(nbdOption+1, uint32(oList), uint32(0))
			p.closed()
		}},
		{"option magic wrong later", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.inStep()
			p.send(nbdMagic, uint32(oList), uint32(0))
			p.closed()
		}},
		{"option unknown", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			for _, opt := range []uint32{0, 4, 12, 1000, 1 << 31, 1<<32 - 1} {
				p.want(rUnsup, opt)
				p.want(rUnsup, opt, make([]byte, 100))
			}
			p.enter(d.export)
		}},
		{"option unknown, much data", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			for _, n := range []int{4096, 65535, 65536} {
				p.want(rUnsup, 99, make([]byte, n))
			}
			p.option(99, make([]byte, 65537))
			if kind, _ := p.reply(99); kind < 1<<31 {
				t.Errorf("answered %#x", kind)
			}
			p.inStep()
		}},
		{"option length lies: 4 GiB", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.send(nbdOption, uint32(99), uint32(1<<32-1), make([]byte, 100))
			p.closed()
		}},
		{"option length lies: too short a rest", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.send(nbdOption, uint32(oInfo), uint32(100), make([]byte, 50))
			half(p)
			p.closed()
		}},
		{"EXPORT_NAME of 4 GiB", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.send(nbdOption, uint32(oExportName), uint32(1<<32-1))
			p.closed()
		}},
		{"options byte by byte", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			for _, b := range pack(nbdOption, uint32(99), uint32(3), []byte("abc"), nbdOption, uint32(oAbort), uint32(0)) {
				p.send([]byte{b})
				time.Sleep(100 * time.Microsecond)
			}
			if kind, _ := p.reply(99); kind != rUnsup {
				t.Errorf("%#x", kind)
			}
			if kind, _ := p.reply(oAbort); kind != rAck {
				t.Errorf("%#x", kind)
			}
			p.closed()
		}},
		{"hundred options in one piece", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			var b []byte
			for range 100 {
				b = append(b, pack(nbdOption, uint32(99), uint32(3), []byte("abc"))...)
			}
			p.send(b)
			for range 100 {
				if kind, _ := p.reply(99); kind != rUnsup {
					t.Fatalf("%#x", kind)
				}
			}
			p.enter(d.export)
		}},
	}
}

// half closes our direction.
func half(p *peer) { p.c.(interface{ CloseWrite() error }).CloseWrite() }

// optionChecks is about the options without an export's name, and EXPORT_NAME.
func optionChecks() []nbdCheck {
	return []nbdCheck{
		{"EXPORT_NAME tells what GO tells", "", func(t *testing.T, d *nbdDoor) {
			p := d.simple(t)
			flags := p.flags
			p.leave()
			p = d.dial(t).greet(3)
			p.option(oExportName, []byte(d.export))
			if size, f := p.u64(), p.u16(); size != d.size || f != flags {
				t.Errorf("%d bytes, flags %#x; GO says %d, %#x", size, f, d.size, flags)
			}
		}},
		{"EXPORT_NAME after STRUCTURED_REPLY", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.structure()
			p.setMeta(d.export, "base:allocation")
			p.option(oExportName, []byte(d.export))
			p.size, p.flags = p.u64(), p.u16()
			if p.flags&tDF == 0 {
				t.Errorf("flags %#x without DF", p.flags)
			}
			p.alive()
		}},
		{"EXPORT_NAME unknown", "", closes(oExportName, "nobody")},
		{"EXPORT_NAME empty", "", closes(oExportName, "")},
		{"EXPORT_NAME too long", "", closes(oExportName, strings.Repeat("n", 5000))},
		{"EXPORT_NAME with NUL", "", func(t *testing.T, d *nbdDoor) { closes(oExportName, d.export+"\x00")(t, d) }},
		{"EXPORT_NAME no UTF-8", "", closes(oExportName, "\xc3\x28")},
		{"ABORT", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.want(rAck, oAbort)
			p.closed()
		}},
		{"ABORT with data", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.want(rAck, oAbort, []byte("farewell"))
			p.closed()
		}},
		{"ABORT after INFO", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.ask(oInfo, d.export)
			p.want(rAck, oAbort)
			p.closed()
		}},
		{"LIST", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			first := listed(p)
			if first[d.export] != d.listed {
				t.Errorf("listed: %v, want %v", first[d.export], d.listed)
			}
			if again := listed(p); len(again) != len(first) || len(first) == 0 {
				t.Errorf("%d exports, then %d", len(first), len(again))
			}
			for name := range first {
				if strings.HasPrefix(name, "attach/") {
					t.Errorf("the list has a token")
				}
			}
		}},
		{"LIST with data", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.want(rInvalid, oList, []byte{0})
			p.want(rInvalid, oList, pack(d.export))
			listed(p)
		}},
		{"STARTTLS that is none", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.want(rInvalid, oStartTLS, []byte("x"))
			if d.network == "tls" {
				p.want(rInvalid, oStartTLS) // a second one
			}
			p.enter(d.export)
			p.alive()
		}},
		{"STRUCTURED_REPLY", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.structure()
			p.structure()
			if i := p.enter(d.export); i.flags&tDF == 0 {
				t.Error("no DF")
			}
			p.alive()
		}},
		{"STRUCTURED_REPLY with data", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.want(rInvalid, oStructured, []byte{1})
			if i := p.enter(d.export); i.flags&tDF != 0 {
				t.Error("agreed all the same")
			}
			p.alive() // a simple reply
		}},
		{"EXTENDED_HEADERS", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.lengthen()
			p.lengthen()
			p.want(rLong, oStructured)
			if i := p.enter(d.export); i.flags&tDF == 0 || i.flags&tPayload != 0 { // no context was chosen
				t.Errorf("flags %#x", i.flags)
			}
			p.alive()
		}},
		{"EXTENDED_HEADERS with data", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.want(rInvalid, oExtended, []byte("x"))
			p.enter(d.export)
			p.alive() // a simple reply
		}},
		{"EXTENDED_HEADERS after STRUCTURED_REPLY", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.structure()
			p.lengthen()
			p.setMeta(d.export, "base:allocation")
			if i := p.enter(d.export); i.flags&(tDF|tPayload) != tDF|tPayload {
				t.Errorf("flags %#x", i.flags)
			}
			p.status(0, 0, 4096)
		}},
		{"EXPORT_NAME after EXTENDED_HEADERS", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.lengthen()
			p.option(oExportName, []byte(d.export))
			p.closed()
		}},
	}
}

// listed returns the names of LIST.
func listed(p *peer) map[string]bool {
	p.t.Helper()
	names := map[string]bool{}
	p.option(oList)
	for {
		kind, data := p.reply(oList)
		if kind == rAck {
			return names
		}
		if kind != rServer || len(data) < 4 || int(binary.BigEndian.Uint32(data)) > len(data)-4 || !utf8.Valid(data[4:]) {
			p.t.Fatalf("LIST: %#x %q", kind, data)
		}
		names[string(data[4:4+binary.BigEndian.Uint32(data)])] = true
	}
}

// closes wants an option to end the connection without a byte.
func closes(opt uint32, data string) func(t *testing.T, d *nbdDoor) {
	return func(t *testing.T, d *nbdDoor) {
		p := d.dial(t).greet(3)
		p.option(opt, []byte(data))
		p.closed()
	}
}

// infoChecks is about INFO and GO.
func infoChecks() []nbdCheck {
	malformed := func(opt uint32) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			n := uint32(len(d.export))
			good := []byte(d.export)
			p := d.dial(t).greet(3)
			for name, data := range map[string][]byte{
				"nothing": {}, "half a length": {0, 0}, "no name": pack(n), "half a name": pack(n, good[:n/2]),
				"no count": pack(d.export), "half a count": pack(d.export, []byte{0}),
				"name longer than the data": pack(n+3, good, uint16(0)), "name of 4 GiB": pack(uint32(1<<32-1), good, uint16(0)),
				"name of 2 GiB": pack(uint32(1<<31), good, uint16(0)), "more kinds than data": pack(d.export, uint16(2), uint16(3)),
				"65535 kinds, none there": pack(d.export, uint16(65535)), "bytes behind": pack(d.export, uint16(1), uint16(3), []byte{0}),
				"kinds behind": pack(d.export, uint16(0), uint16(3)), "count of another size": pack(d.export, uint32(0)),
			} {
				p.option(opt, data)
				if kind, text := p.reply(opt); kind != rInvalid {
					t.Errorf("%s: %#x %q", name, kind, text)
				}
			}
			p.enter(d.export)
			p.alive()
		}
	}
	tooMany := func(t *testing.T, d *nbdDoor) {
		p := d.dial(t).greet(3)
		p.option(oInfo, d.export, uint16(65535), make([]byte, 2*65535))
		if kind, _ := p.reply(oInfo); kind != rTooBig && kind != rInvalid {
			t.Errorf("%#x", kind)
		}
		p.enter(d.export)
	}
	return []nbdCheck{
		{"INFO", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			i := p.ask(oInfo, d.export)
			if i.refused != 0 || i.size != d.size {
				t.Errorf("%+v, want %d bytes", i, d.size)
			}
			p.inStep() // INFO does not enter
		}},
		{"INFO of everything", "", func(t *testing.T, d *nbdDoor) {
			i := d.dial(t).greet(3).ask(oInfo, d.export, 0, 1, 2, 3)
			if i.named && i.name != d.export || i.text == "" {
				t.Errorf("name %q, description %q", i.name, i.text)
			}
			if i.min == 0 || i.min&(i.min-1) != 0 || i.min > 64<<10 || i.pref&(i.pref-1) != 0 || i.pref < max(i.min, 512) || i.max < max(i.pref, 1<<20) || i.max%i.min != 0 {
				t.Errorf("block sizes %d %d %d", i.min, i.pref, i.max)
			}
		}},
		{"INFO of unknown kinds", "", func(t *testing.T, d *nbdDoor) {
			i := d.dial(t).greet(3).ask(oInfo, d.export, 4, 99, 65535, 3)
			if i.refused != 0 || i.max == 0 {
				t.Errorf("%+v", i)
			}
		}},
		{"INFO of one kind often", "", func(t *testing.T, d *nbdDoor) {
			kinds := make([]uint16, 1000)
			for k := range kinds {
				kinds[k] = uint16(k % 5)
			}
			if i := d.dial(t).greet(3).ask(oInfo, d.export, kinds...); i.refused != 0 || len(i.kinds) > 5 || i.max == 0 {
				t.Errorf("%+v", i)
			}
		}},
		{"INFO of 65535 kinds", "", tooMany},
		{"INFO malformed", "", malformed(oInfo)},
		{"GO malformed", "", malformed(oGo)},
		{"INFO and GO agree", "", func(t *testing.T, d *nbdDoor) {
			for _, structured := range []bool{false, true} {
				p := d.dial(t).greet(3)
				if structured {
					p.structure()
				}
				a := p.ask(oInfo, d.export, 1, 2, 3)
				b := p.enter(d.export, 1, 2, 3)
				if a.size != b.size || a.flags != b.flags || a.text != b.text || a.min != b.min || a.pref != b.pref || a.max != b.max {
					t.Errorf("INFO %+v, GO %+v", a, b)
				}
				p.leave()
			}
		}},
		{"INFO twice", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			if a, b := p.ask(oInfo, d.export), p.ask(oInfo, d.export); a.refused != 0 || b.refused != 0 || a.flags != b.flags {
				t.Errorf("%+v, then %+v", a, b)
			}
		}},
		{"INFO of one, GO to another", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.ask(oInfo, d.export)
			if i := p.enter(d.other); i.size != d.otherSize || i.flags&tReadOnly == 0 {
				t.Errorf("%+v, want %d bytes", i, d.otherSize)
			}
			p.alive()
		}},
		{"INFO of another, then GO", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.ask(oInfo, d.other)
			if i := p.enter(d.export); i.size != d.size {
				t.Errorf("%+v", i)
			}
			p.alive()
		}},
		{"INFO and GO of an unknown export", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			for _, opt := range []uint32{oInfo, oGo, oInfo} {
				if i := p.ask(opt, "nobody", 1, 2, 3); i.refused != rUnknown || i.why == "" {
					t.Errorf("%+v", i)
				}
			}
			p.enter(d.export)
			p.alive()
		}},
		{"GO after a good INFO and a refused GO", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.ask(oInfo, d.export)
			p.ask(oGo, "nobody")
			p.enter(d.export)
			p.alive()
		}},
		{"GO and a request in one piece", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			body := pack(d.export, uint16(0))
			q := ask{cmd: cRead, n: 4096}
			p.send(nbdOption, uint32(oGo), uint32(len(body)), body, p.wire(&q))
			p.told(oGo)
			for _, got := range p.collect(1) {
				if string(got.data) != string(d.base[:4096]) {
					t.Error("other bytes than the disk's")
				}
			}
		}},
		{"the whole handshake in one piece", "", func(t *testing.T, d *nbdDoor) {
			p, flags := d.dial(t), pack(uint32(3))
			if p.tls != nil {
				p.greet(3)
				flags = nil
			}
			body, query := pack(d.export, uint16(0)), pack(d.export, uint32(1), "base:allocation")
			q := ask{cmd: cStatus, n: 4096}
			p.structured = true
			p.send(flags, nbdOption, uint32(oStructured), uint32(0), nbdOption, uint32(oSetMeta), uint32(len(query)), query,
				nbdOption, uint32(oGo), uint32(len(body)), body, p.wire(&q))
			if flags != nil {
				p.bytes(18)
			}
			for _, want := range []uint32{oStructured, oSetMeta, oSetMeta} {
				p.reply(want)
			}
			p.size = p.told(oGo).size
			p.collect(1)
		}},
		{"transmission flags", "", func(t *testing.T, d *nbdDoor) {
			p := d.open(t)
			must, never := uint16(tHas|tFlush|tFUA|tDF), uint16(tRotational|tResize|1<<12|1<<13|1<<14|1<<15)
			if d.writable {
				must, never = must|tTrim|tZeroes, never|tReadOnly
			} else {
				must, never = must|tReadOnly, never|tTrim|tZeroes|tFast
			}
			if d.multi {
				must |= tMulti
			} else {
				never |= tMulti
			}
			if p.flags&must != must || p.flags&never != 0 || p.flags&tFast != 0 && p.flags&tZeroes == 0 {
				t.Errorf("flags %#b, must have %#b, must not have %#b", p.flags, must, never)
			}
		}},
		{"no DF without structured replies", "", func(t *testing.T, d *nbdDoor) {
			if p := d.simple(t); p.flags&tDF != 0 {
				t.Errorf("flags %#b", p.flags)
			}
		}},
	}
}

// contextChecks is about metadata contexts.
func contextChecks() []nbdCheck {
	none := func(queries ...string) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.structure()
			if got := p.setMeta(d.export, queries...); len(got) > 0 {
				t.Errorf("SET selects %v", got)
			}
			p.enter(d.export)
			p.fails(eINVAL, ask{cmd: cStatus, n: 4096})
		}
	}
	lists := func(want []string, queries ...string) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.structure()
			got := p.meta(oListMeta, d.export, queries...)
			for _, name := range want {
				if id, ok := got[name]; !ok || id != 0 {
					t.Errorf("LIST gives %v without %s, or with an id", got, name)
				}
			}
			if len(got) != len(want) {
				t.Errorf("LIST gives %v", got)
			}
			p.enter(d.export)
			p.fails(eINVAL, ask{cmd: cStatus, n: 4096}) // to list is not to choose
		}
	}
	malformed := func(opt uint32) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.structure()
			const q = "base:allocation"
			for name, data := range map[string][]byte{
				"nothing": {}, "half a length": {0}, "no name": pack(uint32(5)), "no count": pack(d.export), "half a count": pack(d.export, uint16(0)),
				"name of 4 GiB": pack(uint32(1<<32-1), []byte(d.export), uint32(1), q), "no query": pack(d.export, uint32(1)),
				"4 Gi queries": pack(d.export, uint32(1<<32-1), q), "query too long": pack(d.export, uint32(1), uint32(100), []byte(q)),
				"query of 4 GiB": pack(d.export, uint32(1), uint32(1<<32-1), []byte(q)), "half a query": pack(d.export, uint32(1), uint32(15), []byte("base")),
				"bytes behind": pack(d.export, uint32(1), q, []byte{0}), "a query behind": pack(d.export, uint32(1), q, q),
				"bytes behind none": pack(d.export, uint32(0), []byte{0, 0}),
			} {
				p.option(opt, data)
				if kind, text := p.reply(opt); kind != rInvalid {
					t.Errorf("%s: %#x %q", name, kind, text)
				}
				p.inStep()
			}
		}
	}
	// holds does something between SET and GO and wants the context to hold, or not.
	holds := func(want bool, between func(p *peer, d *nbdDoor)) func(t *testing.T, d *nbdDoor) {
		return func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.structure()
			if got := p.setMeta(d.export, "base:allocation"); len(got) != 1 {
				t.Fatalf("SET gives %v", got)
			}
			between(p, d)
			p.enter(d.export)
			if want {
				p.status(0, 0, 4096)
			} else {
				p.fails(eINVAL, ask{cmd: cStatus, n: 4096})
			}
		}
	}
	return []nbdCheck{
		{"contexts without structured replies", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.want(rInvalid, oSetMeta, d.export, uint32(1), "base:allocation")
			p.option(oListMeta, d.export, uint32(0))
			p.reply(oListMeta)
			p.enter(d.export)
			p.fails(eINVAL, ask{cmd: cStatus, n: 4096})
		}},
		{"LIST_META of all", "", lists([]string{"base:allocation", "qemu:allocation-depth"})},
		{"LIST_META of base:", "", lists([]string{"base:allocation"}, "base:")},
		{"LIST_META of qemu:", "", lists([]string{"qemu:allocation-depth"}, "qemu:")},
		{"LIST_META of qemu:dirty-bitmap:", "", lists(nil, "qemu:dirty-bitmap:")},
		{"LIST_META of base:allocation", "", lists([]string{"base:allocation"}, "base:allocation")},
		{"LIST_META of both and more", "", lists([]string{"base:allocation"}, "x:y", "base:", "base:allocation", "base:allocation")},
		{"LIST_META of an unknown leaf", "", lists(nil, "base:nothing")},
		{"LIST_META of an unknown namespace", "", lists(nil, "qemu:dirty-bitmap:b", "x-", ":", "")},
		{"LIST_META malformed", "", malformed(oListMeta)},
		{"SET_META malformed", "", malformed(oSetMeta)},
		{"SET_META of nothing", "", none()},
		{"SET_META of base:", "", none("base:")},
		{"SET_META of an unknown leaf", "", none("base:nothing", "base:allocation2", "base:Allocation")},
		{"SET_META of an unknown namespace", "", none("qemu:allocation-depths", "qemu:", "qemu:dirty-bitmap:", "qemu:dirty-bitmap:nobody", "nonsense", "", "a\x00b")},
		{"SET_META of one context twice", "", holds(true, func(p *peer, d *nbdDoor) {
			if got := p.setMeta(d.export, "base:allocation", "base:allocation", "base:"); len(got) != 1 {
				p.t.Errorf("%v", got)
			}
		})},
		{"SET_META of 256 queries", "", holds(true, func(p *peer, d *nbdDoor) {
			queries := make([]string, 256)
			for i := range queries {
				queries[i] = "base:allocation"
			}
			p.setMeta(d.export, queries...)
		})},
		{"SET_META of too many queries", "", holds(false, func(p *peer, d *nbdDoor) {
			p.want(rTooBig, oSetMeta, d.export, uint32(300), bytes.Repeat(pack("base:allocation"), 300))
		})},
		{"contexts hold", "", holds(true, func(*peer, *nbdDoor) {})},
		{"contexts hold over INFO of another", "", holds(true, func(p *peer, d *nbdDoor) { p.ask(oInfo, d.other) })},
		{"contexts hold over a refused GO", "", holds(true, func(p *peer, d *nbdDoor) { p.ask(oGo, "nobody") })},
		{"contexts hold over LIST_META", "", holds(true, func(p *peer, d *nbdDoor) { p.meta(oListMeta, d.other) })},
		{"contexts of another export", "", holds(false, func(p *peer, d *nbdDoor) { p.setMeta(d.other, "base:allocation") })},
		{"contexts replaced by none", "", holds(false, func(p *peer, d *nbdDoor) { p.setMeta(d.export) })},
		{"contexts dropped by a malformed SET_META", "", holds(false, func(p *peer, d *nbdDoor) { p.want(rInvalid, oSetMeta, []byte{1}) })},
		{"contexts dropped by SET_META of an unknown export", "", holds(false, func(p *peer, d *nbdDoor) {
			p.want(rUnknown, oSetMeta, "nobody", uint32(1), "base:allocation")
		})},
		{"contexts only for the export of GO", "", func(t *testing.T, d *nbdDoor) {
			p := d.dial(t).greet(3)
			p.structure()
			p.setMeta(d.export, "base:allocation")
			p.enter(d.other)
			p.fails(eINVAL, ask{cmd: cStatus, n: 4096})
		}},
	}
}
