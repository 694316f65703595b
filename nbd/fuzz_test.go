package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// talkTo sends all of input to a new server, reads what it says until it
// closes, and fails if it does not close in time.
func talkTo(t *testing.T, secure *tls.Config, input []byte) []byte {
	disk := newMemory(1 << 20)
	rw := nbd.Export{Disk: disk, Bitmaps: []nbd.Bitmap{{Name: "b", Changed: changes{512, 4096}}}}
	x := &exports{byName: map[string]nbd.Export{"": {Disk: disk}, "rw": rw, "ro": {Disk: readOnly{disk}}}}
	s, err := nbd.New(nbd.Config{Exports: x, HandshakeTimeout: 2 * time.Second, MaxRequest: 1 << 20, TLS: secure})
	if err != nil {
		t.Fatal(err)
	}
	l := newPipes()
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	c := l.dial()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	go func() {
		defer c.Close()
		c.Write(input)
		c.Write((&nbdtest.Request{Cmd: nbdtest.CmdDisc}).Append(nil))
		// What was too short to be whole is completed by this, or refused.
		for range 64 {
			c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := c.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}()
	var said bytes.Buffer
	if _, err := io.Copy(&said, io.LimitReader(c, 64<<20)); err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Fatal("the server neither answers nor closes")
		}
	}
	c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	<-served
	if n := x.stillOpen(); n != 0 {
		t.Fatalf("%d exports were never closed", n)
	}
	return said.Bytes()
}

func FuzzNegotiation(f *testing.F) {
	option := func(opt uint32, data []byte) []byte {
		return append(nbdtest.OptionHeader(opt, uint32(len(data))), data...)
	}
	flags := []byte{0, 0, 0, 3}
	goRW := option(nbdtest.OptGo, binary.BigEndian.AppendUint16(nbdtest.String("rw"), 0))
	for _, seed := range [][]byte{
		nil, flags, {0, 0, 0, 4},
		append(flags[:4:4], option(nbdtest.OptAbort, nil)...),
		append(flags[:4:4], option(nbdtest.OptList, nil)...),
		append(flags[:4:4], option(nbdtest.OptExportName, []byte("ro"))...),
		append(flags[:4:4], goRW...),
		append(flags[:4:4], goRW[:20]...),
		append(flags[:4:4], option(nbdtest.OptInfo, []byte{0, 0, 0, 2, 'r', 'w', 0, 2, 0, 1, 0, 3})...),
		append(append(flags[:4:4], option(nbdtest.OptStructuredReply, nil)...), option(nbdtest.OptSetMetaContext, nbdtest.ContextRequest("rw", "base:allocation"))...),
		append(append(flags[:4:4], option(nbdtest.OptStructuredReply, nil)...), option(nbdtest.OptListMetaContext, nbdtest.ContextRequest("", "base:", "x:y"))...),
		append(append(flags[:4:4], option(nbdtest.OptExtendedHeaders, nil)...), option(nbdtest.OptSetMetaContext, nbdtest.ContextRequest("rw", "base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b"))...),
		append(append(flags[:4:4], option(nbdtest.OptExtendedHeaders, nil)...), option(nbdtest.OptStructuredReply, nil)...),
		append(append(flags[:4:4], option(nbdtest.OptExtendedHeaders, nil)...), option(nbdtest.OptExportName, []byte("rw"))...),
		append(append(flags[:4:4], option(nbdtest.OptExtendedHeaders, nil)...), goRW...),
		append(flags[:4:4], option(nbdtest.OptStartTLS, nil)...),
		append(append(flags[:4:4], option(nbdtest.OptStartTLS, nil)...), 22, 3, 1, 0, 5, 1, 0, 0, 1, 0),
		append(flags[:4:4], nbdtest.OptionHeader(nbdtest.OptGo, 1<<32-1)...),
		append(flags[:4:4], option(99, make([]byte, 70_000))...),
	} {
		f.Add(seed)
	}
	secure := nbdtest.NewAuthority(f, "an authority").Server(f, tls.VerifyClientCertIfGiven)
	f.Fuzz(func(t *testing.T, input []byte) {
		said := talkTo(t, secure, input)
		if len(said) < 18 || string(said[:16]) != "NBDMAGICIHAVEOPT" {
			t.Fatalf("greeting %q", said[:min(len(said), 18)])
		}
	})
}

func FuzzRequests(f *testing.F) {
	type q = nbdtest.Request
	for _, seed := range []q{
		{Cmd: nbdtest.CmdRead, Len: 4096}, {Cmd: nbdtest.CmdRead, Off: 1 << 63, Len: 1<<32 - 1},
		{Cmd: nbdtest.CmdRead, Flags: nbdtest.DF, Len: 1 << 20}, {Cmd: nbdtest.CmdWrite, Payload: make([]byte, 600)},
		{Cmd: nbdtest.CmdWrite, Flags: nbdtest.FUA, Len: 100_000}, {Cmd: nbdtest.CmdTrim, Len: 1 << 20},
		{Cmd: nbdtest.CmdWriteZeroes, Flags: nbdtest.FastZero, Len: 1 << 20}, {Cmd: nbdtest.CmdCache, Len: 1},
		{Cmd: nbdtest.CmdBlockStatus, Len: 1 << 20}, {Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.ReqOne, Off: 5, Len: 7},
		{Cmd: nbdtest.CmdFlush}, {Cmd: 77, Flags: 0xffff, Off: 1<<64 - 1, Len: 1<<32 - 1},
	} {
		p := seed.Append(nil)
		f.Add(true, p)
		f.Add(false, append(p, p...))
	}
	f.Fuzz(func(t *testing.T, structured bool, input []byte) {
		var agree []byte
		if structured {
			agree = inExport(nbdtest.OptionHeader(nbdtest.OptStructuredReply, 0), "base:allocation")
		} else {
			agree = inExport(nil)
		}
		talkTo(t, nil, append(agree, input...))
	})
}

// inExport returns what a client says to get into an export: an option, then
// which contexts it wants.
func inExport(option []byte, contexts ...string) []byte {
	p := append([]byte{0, 0, 0, 3}, option...)
	if len(contexts) > 0 {
		data := nbdtest.ContextRequest("rw", contexts...)
		p = append(append(p, nbdtest.OptionHeader(nbdtest.OptSetMetaContext, uint32(len(data)))...), data...)
	}
	data := binary.BigEndian.AppendUint16(nbdtest.String("rw"), 0)
	return append(append(p, nbdtest.OptionHeader(nbdtest.OptGo, uint32(len(data)))...), data...)
}

func FuzzExtendedRequests(f *testing.F) {
	type q = nbdtest.Request
	const payload = nbdtest.PayloadLen
	for _, seed := range []q{
		{Cmd: nbdtest.CmdRead, Len: 100_000}, {Cmd: nbdtest.CmdRead, Off: 1 << 63, Len: 1<<64 - 1},
		{Cmd: nbdtest.CmdWrite, Flags: payload, Payload: make([]byte, 600)}, {Cmd: nbdtest.CmdWrite, Len: 600},
		{Cmd: nbdtest.CmdWrite, Flags: payload, Len: 1<<64 - 1}, {Cmd: nbdtest.CmdWrite, Flags: payload | nbdtest.FUA, Len: 100_000},
		{Cmd: nbdtest.CmdTrim, Len: 1 << 40}, {Cmd: nbdtest.CmdWriteZeroes, Flags: nbdtest.FastZero | nbdtest.NoHole, Len: 1 << 20},
		{Cmd: nbdtest.CmdFlush, Flags: payload, Payload: make([]byte, 9)}, {Cmd: nbdtest.CmdCache, Off: 1 << 32, Len: 1 << 33},
		{Cmd: nbdtest.CmdBlockStatus, Len: 1 << 20}, {Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.ReqOne, Off: 5, Len: 7},
		{Cmd: nbdtest.CmdBlockStatus, Flags: payload, Payload: nbdtest.StatusFilter(1<<20, 2, 1)},
		{Cmd: nbdtest.CmdBlockStatus, Flags: payload, Payload: nbdtest.StatusFilter(1<<63, 1, 1)},
		{Cmd: nbdtest.CmdBlockStatus, Flags: payload, Payload: []byte{1, 2, 3}}, {Cmd: 77, Flags: 0xffff, Len: 1 << 20},
	} {
		p := seed.AppendExtended(nil)
		f.Add(p)
		f.Add(append(p, p...))
	}
	agree := inExport(nbdtest.OptionHeader(nbdtest.OptExtendedHeaders, 0), "base:allocation", "qemu:allocation-depth")
	f.Fuzz(func(t *testing.T, input []byte) { talkTo(t, nil, append(agree[:len(agree):len(agree)], input...)) })
}

// FuzzState has states of connections that were not made by Suspend, or were
// damaged in a way that the checksum does not tell.
func FuzzState(f *testing.F) {
	a := serve(f)
	for _, c := range []*nbdtest.Client{a.simple(f, "rw"), a.enter(f, "ro"), a.extended(f, "4k")} {
		c.Write([]byte{1, 2, 3})
	}
	time.Sleep(5 * time.Millisecond)
	for _, h := range a.suspend(f, 10*time.Second) {
		f.Add(h.State[:len(h.State)-4])
		h.Conn.Close()
	}
	b := a.successor(f)
	f.Fuzz(func(t *testing.T, state []byte) {
		state = binary.BigEndian.AppendUint32(state, crc32.Checksum(state, crc32.MakeTable(crc32.Castagnoli)))
		mine, theirs := net.Pipe()
		b.Resume(t.Context(), mine, state)
		theirs.Close()
		for deadline := time.Now().Add(30 * time.Second); len(b.Conns()) > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the connection does not end")
			}
		}
	})
}
