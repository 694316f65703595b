package nbd_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// denied fails the test unless err refuses an option with kind and a text.
func denied(t *testing.T, err error, kind uint32) {
	t.Helper()
	e, ok := errors.AsType[*nbdtest.OptError](err)
	if !ok || e.Type != kind {
		t.Fatalf("got %v, want a refusal 2^31+%d", err, kind&^(1<<31))
	}
	if e.Text == "" {
		t.Error("a refusal without a text")
	}
}

func TestClientFlags(t *testing.T) {
	a := serve(t)
	for _, flags := range []uint32{4, 1 << 31, 7} {
		c, _ := nbdtest.Dial("unix", a.socket)
		c.Close()
		c = dialRaw(t, a)
		if err := c.Greet(flags); err != nil {
			t.Fatal(err)
		}
		c.SendOption(nbdtest.OptList, nil)
		if err := c.Ended(); err != nil {
			t.Errorf("flags %#x: %v", flags, err)
		}
	}
	for _, flags := range []uint32{0, nbdtest.NoZeroes, nbdtest.FixedNewstyle} {
		c := dialRaw(t, a)
		if err := c.Greet(flags); err != nil {
			t.Fatal(err)
		}
		if err := c.ExportName("ro"); err != nil {
			t.Errorf("flags %#x: %v", flags, err)
		}
		if _, err := c.Read(0, 512, 0); err != nil {
			t.Errorf("flags %#x: %v", flags, err)
		}
	}
}

func TestExportName(t *testing.T) {
	a := serve(t)
	for _, name := range []string{"rw", "ro", ""} {
		c := a.dial(t)
		if err := c.ExportName(name); err != nil {
			t.Fatal(err)
		}
		if c.Size != diskSize || (c.Flags&nbdtest.ReadOnly == 0) != (name == "rw") {
			t.Errorf("%q: size %d, flags %#x", name, c.Size, c.Flags)
		}
		if _, err := c.Read(diskSize-1, 1, 0); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"none", "\x00", "\xff", strings.Repeat("x", 5000), strings.Repeat("y", 70000)} {
		c := a.dial(t)
		if err := c.ExportName(name); err == nil {
			t.Errorf("%.10q of %d bytes is served", name, len(name))
		}
	}
	a.alive(t)
}

func TestAbort(t *testing.T) {
	a := serve(t)
	if err := a.dial(t).Abort(); err != nil {
		t.Error(err)
	}
	c := a.dial(t)
	if _, err := c.Option(nbdtest.OptAbort, []byte("data is ignored")); err != nil {
		t.Error(err)
	}
	if err := c.Ended(); err != nil {
		t.Error(err)
	}
}

func TestList(t *testing.T) {
	a := serve(t)
	c := a.dial(t)
	list, err := c.List()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(list); got != "[{ } {4k } {ro only reading ☺} {rw read and write}]" {
		t.Errorf("got %v", got)
	}
	_, err = c.Option(nbdtest.OptList, []byte("x"))
	denied(t, err, nbdtest.RepErrInvalid)
	if _, err := c.List(); err != nil {
		t.Errorf("out of step: %v", err)
	}
}

func TestInfoAndGo(t *testing.T) {
	a := serve(t)
	c := a.dial(t)
	all := []uint16{nbdtest.InfoName, nbdtest.InfoDescription, nbdtest.InfoBlockSize, 77, nbdtest.InfoExport, nbdtest.InfoName}
	for _, opt := range []func(string, ...uint16) (nbdtest.Info, error){c.Info, c.Go} {
		_, err := opt("none", all...)
		denied(t, err, nbdtest.RepErrUnknown)
	}
	first, err := c.Info("4k", all...)
	if err != nil {
		t.Fatal(err)
	}
	if first.Name != "4k" || first.Minimum != 4096 || first.Preferred != 65536 || first.Max != 1<<20 || first.Size != diskSize {
		t.Errorf("got %+v", first)
	}
	if plain, err := c.Info("rw"); err != nil || plain.Name != "" || plain.Description != "" || plain.Max != 0 {
		t.Errorf("asked for nothing, got %+v, %v", plain, err)
	}
	again, err := c.Go("4k", all...)
	if err != nil || again != first {
		t.Errorf("GO says %+v, %v; INFO said %+v", again, err, first)
	}
	if rw, err := a.dial(t).Info("rw", all...); err != nil || rw.Minimum != 1 || rw.Preferred != 4096 || rw.Max != 32<<20 || rw.Description != "read and write" {
		t.Errorf("got %+v, %v", rw, err)
	}
}

func TestTransmissionFlags(t *testing.T) {
	a := serve(t)
	const both = nbdtest.HasFlags | nbdtest.SendFlush | nbdtest.SendFUA | nbdtest.SendCache
	const writable = both | nbdtest.SendTrim | nbdtest.SendWriteZeroes | nbdtest.SendFastZero
	for name, want := range map[string]uint16{
		"rw": writable | nbdtest.CanMultiConn, "4k": writable,
		"ro": both | nbdtest.ReadOnly, "": both | nbdtest.ReadOnly | nbdtest.CanMultiConn,
	} {
		if c := a.simple(t, name); c.Flags != want {
			t.Errorf("%q: %#x, want %#x", name, c.Flags, want)
		}
		if c := a.enter(t, name); c.Flags != want|nbdtest.SendDF {
			t.Errorf("%q, structured: %#x, want %#x", name, c.Flags, want|nbdtest.SendDF)
		}
	}
}

// TestMalformedOptions sends what does not add up, and looks that the server
// stays in step.
func TestMalformedOptions(t *testing.T) {
	a := serve(t)
	u16, u32 := binary.BigEndian.AppendUint16, binary.BigEndian.AppendUint32
	long := func(n uint32) []byte { return append(u32(nil, n), "rw\x00\x00"...) }
	for name, tt := range map[string]struct {
		opt  uint32
		data []byte
		want uint32
	}{
		"info without anything":         {nbdtest.OptInfo, nil, nbdtest.RepErrInvalid},
		"info with a short length":      {nbdtest.OptInfo, []byte{0, 0, 0}, nbdtest.RepErrInvalid},
		"info with a long name":         {nbdtest.OptInfo, long(100), nbdtest.RepErrInvalid},
		"info with a huge name":         {nbdtest.OptInfo, long(1<<32 - 1), nbdtest.RepErrInvalid},
		"info with too many requests":   {nbdtest.OptInfo, u16(nbdtest.String("rw"), 3), nbdtest.RepErrInvalid},
		"info with bytes behind":        {nbdtest.OptInfo, append(u16(nbdtest.String("rw"), 0), 1), nbdtest.RepErrInvalid},
		"go with bytes behind":          {nbdtest.OptGo, append(u16(nbdtest.String("rw"), 0), 1), nbdtest.RepErrInvalid},
		"go with a name of 5000":        {nbdtest.OptGo, u16(nbdtest.String(strings.Repeat("n", 5000)), 0), nbdtest.RepErrInvalid},
		"go with NUL in the name":       {nbdtest.OptGo, u16(nbdtest.String("r\x00w"), 0), nbdtest.RepErrInvalid},
		"go with no UTF-8":              {nbdtest.OptGo, u16(nbdtest.String("\xc0\x80"), 0), nbdtest.RepErrInvalid},
		"structured replies with data":  {nbdtest.OptStructuredReply, []byte{1}, nbdtest.RepErrInvalid},
		"starttls with data":            {nbdtest.OptStartTLS, []byte{1}, nbdtest.RepErrInvalid},
		"starttls":                      {nbdtest.OptStartTLS, nil, nbdtest.RepErrUnsup},
		"extended headers with data":    {nbdtest.OptExtendedHeaders, []byte{1}, nbdtest.RepErrInvalid},
		"an option nobody knows":        {4242, []byte("whatever"), nbdtest.RepErrUnsup},
		"option 0":                      {0, nil, nbdtest.RepErrUnsup},
		"option 4, withdrawn":           {4, nil, nbdtest.RepErrUnsup},
		"an option of 100 kB":           {4242, make([]byte, 100_000), nbdtest.RepErrTooBig},
		"go of 100 kB":                  {nbdtest.OptGo, make([]byte, 100_000), nbdtest.RepErrTooBig},
		"contexts without anything":     {nbdtest.OptSetMetaContext, nil, nbdtest.RepErrInvalid},
		"contexts with a missing query": {nbdtest.OptSetMetaContext, u32(nbdtest.String("rw"), 1), nbdtest.RepErrInvalid},
		"contexts with bytes behind":    {nbdtest.OptSetMetaContext, append(nbdtest.ContextRequest("rw", "base:allocation"), 0), nbdtest.RepErrInvalid},
		"contexts with a huge count":    {nbdtest.OptListMetaContext, u32(nbdtest.String("rw"), 1<<32-1), nbdtest.RepErrInvalid},
		"contexts of an unknown export": {nbdtest.OptSetMetaContext, nbdtest.ContextRequest("none", "base:allocation"), nbdtest.RepErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			c := a.dial(t)
			if err := c.StructuredReplies(); err != nil {
				t.Fatal(err)
			}
			_, err := c.Option(tt.opt, tt.data)
			denied(t, err, tt.want)
			if err := c.Enter("rw"); err != nil {
				t.Fatalf("out of step: %v", err)
			}
			if _, err := c.Read(0, 512, 0); err != nil {
				t.Errorf("out of step: %v", err)
			}
		})
	}
}

// TestUnrecoverable sends what leaves no way but to close.
func TestUnrecoverable(t *testing.T) {
	a := serve(t)
	for name, bytes := range map[string][]byte{
		"wrong option magic":    []byte("IHAVENOT\x00\x00\x00\x03\x00\x00\x00\x00"),
		"option of 4 GiB":       nbdtest.OptionHeader(nbdtest.OptGo, 1<<32-1),
		"export name of 4 GiB":  nbdtest.OptionHeader(nbdtest.OptExportName, 1<<32-1),
		"request before export": (&nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 512}).Append(nil),
	} {
		t.Run(name, func(t *testing.T) {
			c := a.dial(t)
			c.Write(bytes)
			if err := c.Ended(); err != nil {
				t.Error(err)
			}
		})
	}
	a.alive(t)
}

// TestOpenErrors looks how errors of Exports are told.
func TestOpenErrors(t *testing.T) {
	a := serve(t)
	for _, tt := range []struct {
		err  error
		want uint32
	}{
		{fmt.Errorf("image 12: %w", fs.ErrNotExist), nbdtest.RepErrUnknown},
		{fmt.Errorf("held by x: %w", fs.ErrPermission), nbdtest.RepErrPolicy},
		{fmt.Errorf("held by x: %w", syscall.EBUSY), nbdtest.RepErrPolicy},
		{errors.New("the store is away; try again"), nbdtest.RepErrPlatform},
		{errors.New(strings.Repeat("☺", 3000) + "\xff\x00"), nbdtest.RepErrPlatform},
	} {
		a.exports.before = func(context.Context, string) error { return tt.err }
		_, err := a.dial(t).Go("rw")
		denied(t, err, tt.want)
	}
	a.exports.before = func(context.Context, string) error { panic("a bug") }
	_, err := a.dial(t).Go("rw")
	denied(t, err, nbdtest.RepErrPlatform)
	a.exports.before = nil
	a.exports.byName["bad"] = nbd.Export{Disk: a.disk, MinBlock: 3}
	_, err = a.dial(t).Go("bad")
	denied(t, err, nbdtest.RepErrPlatform)
	a.exports.byName["empty"] = nbd.Export{}
	_, err = a.dial(t).Go("empty")
	denied(t, err, nbdtest.RepErrPlatform)
	a.alive(t)
}

// TestPipelinedNegotiation sends everything at once, requests included.
func TestPipelinedNegotiation(t *testing.T) {
	a := serve(t)
	c := dialRaw(t, a)
	p := []byte{0, 0, 0, 3}
	p = append(p, nbdtest.OptionHeader(nbdtest.OptList, 0)...)
	data := binary.BigEndian.AppendUint16(nbdtest.String("rw"), 0)
	p = append(append(p, nbdtest.OptionHeader(nbdtest.OptGo, uint32(len(data)))...), data...)
	p = (&nbdtest.Request{Cmd: nbdtest.CmdRead, Cookie: 7, Len: 512}).Append(p)
	p = (&nbdtest.Request{Cmd: nbdtest.CmdDisc}).Append(p)
	if err := c.Write(p); err != nil {
		t.Fatal(err)
	}
	c.Greet(0) // reads the greeting; its flags come after DISC and are never read
	for _, opt := range []uint32{nbdtest.OptList, nbdtest.OptGo} {
		for {
			r, err := c.OptReply(opt)
			if err != nil {
				t.Fatal(err)
			}
			if r.Type == nbdtest.RepAck {
				break
			}
		}
	}
	k, err := c.Receive(func(uint64) (nbdtest.Request, bool) {
		return nbdtest.Request{Cmd: nbdtest.CmdRead, Len: 512}, true
	})
	if err != nil || k.Cookie != 7 || len(k.Data) != 512 {
		t.Errorf("got %+v, %v", k, err)
	}
	if err := c.Ended(); err != nil {
		t.Error(err)
	}
}
