package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// talkTo sends all of input to a new server, reads what it says until it
// closes, and fails if it does not close in time.
func talkTo(t *testing.T, input []byte) []byte {
	disk := newMemory(1 << 20)
	x := &exports{byName: map[string]nbd.Export{"": {Disk: disk}, "rw": {Disk: disk}, "ro": {Disk: readOnly{disk}}}}
	s, err := nbd.New(nbd.Config{Exports: x, HandshakeTimeout: 2 * time.Second, MaxRequest: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	l := newPipes()
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	c := l.dial()
	c.SetDeadline(time.Now().Add(5 * time.Second))
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
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
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
		append(flags[:4:4], option(nbdtest.OptStartTLS, nil)...),
		append(flags[:4:4], nbdtest.OptionHeader(nbdtest.OptGo, 1<<32-1)...),
		append(flags[:4:4], option(99, make([]byte, 70_000))...),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		said := talkTo(t, input)
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
		p := []byte{0, 0, 0, 3}
		if structured {
			p = append(p, nbdtest.OptionHeader(nbdtest.OptStructuredReply, 0)...)
			data := nbdtest.ContextRequest("rw", "base:allocation")
			p = append(append(p, nbdtest.OptionHeader(nbdtest.OptSetMetaContext, uint32(len(data)))...), data...)
		}
		data := binary.BigEndian.AppendUint16(nbdtest.String("rw"), 0)
		p = append(append(p, nbdtest.OptionHeader(nbdtest.OptGo, uint32(len(data)))...), data...)
		talkTo(t, append(p, input...))
	})
}
