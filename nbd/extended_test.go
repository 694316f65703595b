package nbd_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/nbd"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestExtendedHeaders looks how extended headers are agreed on.
func TestExtendedHeaders(t *testing.T) {
	a := serve(t)
	c := a.dial(t)
	for range 2 { // again is no error
		if err := c.ExtendedHeaders(); err != nil {
			t.Fatal(err)
		}
	}
	denied(t, c.StructuredReplies(), nbdtest.RepErrExtended)
	asked, err := c.Info("rw")
	if err != nil || asked.Flags&nbdtest.SendDF == 0 || asked.Flags&nbdtest.StatusPayload == 0 {
		t.Errorf("flags %#x, %v", asked.Flags, err)
	}
	if _, err := c.Go("rw"); err != nil || c.Flags&nbdtest.StatusPayload != 0 { // no context was chosen
		t.Errorf("flags %#x, %v", c.Flags, err)
	}
	if c = a.extended(t, "rw"); c.Flags&nbdtest.StatusPayload == 0 {
		t.Errorf("with contexts: flags %#x", c.Flags)
	}
	if infos := a.Conns(); len(infos) != 2 || infos[1].Headers != "extended" {
		t.Errorf("%+v", infos)
	}
	c = a.dial(t) // structured replies first are no hindrance
	c.StructuredReplies()
	if err := c.EnterExtended("ro"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(0, 512, 0); err != nil {
		t.Error(err)
	}
	c = a.dial(t)
	c.ExtendedHeaders()
	if err := c.ExportName("rw"); err == nil {
		t.Error("EXPORT_NAME is served after extended headers")
	}
	a.alive(t)
}

// TestExtendedPayloads has requests with payloads where none belongs, or none
// where one does.
func TestExtendedPayloads(t *testing.T) {
	type q = nbdtest.Request
	a := serve(t)
	c := a.extended(t, "rw")
	ids := []uint32{c.Contexts["base:allocation"], c.Contexts["qemu:allocation-depth"]}
	filter := func(n uint64, ids ...uint32) q {
		return q{Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.PayloadLen, Payload: nbdtest.StatusFilter(n, ids...)}
	}
	for name, tt := range map[string]struct {
		q    q
		want uint32
	}{
		"read with a payload":         {q{Cmd: nbdtest.CmdRead, Flags: nbdtest.PayloadLen, Payload: make([]byte, 512)}, nbdtest.EINVAL},
		"flush with a payload":        {q{Cmd: nbdtest.CmdFlush, Flags: nbdtest.PayloadLen, Payload: make([]byte, 1)}, nbdtest.EINVAL},
		"trim with a payload":         {q{Cmd: nbdtest.CmdTrim, Flags: nbdtest.PayloadLen, Payload: make([]byte, 100_000)}, nbdtest.EINVAL},
		"zeroes with a payload":       {q{Cmd: nbdtest.CmdWriteZeroes, Flags: nbdtest.PayloadLen, Payload: make([]byte, 4096)}, nbdtest.EINVAL},
		"cache with a payload":        {q{Cmd: nbdtest.CmdCache, Flags: nbdtest.PayloadLen, Payload: make([]byte, 4096)}, nbdtest.EINVAL},
		"unknown with a payload":      {q{Cmd: 99, Flags: nbdtest.PayloadLen, Payload: make([]byte, 4096)}, nbdtest.EINVAL},
		"read with an empty payload":  {q{Cmd: nbdtest.CmdRead, Flags: nbdtest.PayloadLen}, nbdtest.EINVAL},
		"status of one context":       {filter(4096, ids[0]), 0},
		"status of both contexts":     {filter(4096, ids[1], ids[0]), 0},
		"status of all of the disk":   {filter(diskSize, ids[1]), 0},
		"status past the end":         {filter(diskSize+1, ids[0]), nbdtest.EINVAL},
		"status of 2^64-1":            {filter(1<<64-1, ids[0]), nbdtest.EINVAL},
		"status of nothing":           {filter(0, ids[0]), nbdtest.EINVAL},
		"status, a context twice":     {filter(4096, ids[0], ids[0]), nbdtest.EINVAL},
		"status, an unknown context":  {filter(4096, ids[0], 77), nbdtest.EINVAL},
		"status, no context":          {filter(4096), nbdtest.EINVAL},
		"status, half a context":      {q{Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.PayloadLen, Payload: make([]byte, 14)}, nbdtest.EINVAL},
		"status, a large payload":     {q{Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.PayloadLen, Payload: make([]byte, 1<<20)}, nbdtest.EINVAL},
		"status, REQ_ONE":             {q{Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.PayloadLen | nbdtest.ReqOne, Payload: nbdtest.StatusFilter(8192, ids[0])}, 0},
		"status, an unknown flag too": {q{Cmd: nbdtest.CmdBlockStatus, Flags: nbdtest.PayloadLen | nbdtest.DF, Payload: nbdtest.StatusFilter(8192, ids[0])}, nbdtest.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Do(tt.q)
			want(t, err, tt.want)
			if _, err := c.Read(0, 4096, 0); err != nil {
				t.Fatalf("out of step: %v", err)
			}
		})
	}
	t.Run("write without the flag", func(t *testing.T) { // as QEMU sends it
		for _, n := range []int{512, 100_000} {
			if _, err := c.Do(q{Cmd: nbdtest.CmdWrite, Len: uint64(n), Payload: pattern(n, 3)}); err != nil {
				t.Error(err)
			}
			got, err := c.Read(0, n, 0)
			if err != nil {
				t.Fatalf("out of step: %v", err)
			}
			mustEqual(t, got, pattern(n, 3))
		}
	})
	t.Run("status without contexts", func(t *testing.T) {
		c := a.dial(t)
		c.ExtendedHeaders()
		c.Go("rw")
		_, err := c.Do(filter(4096, 1))
		want(t, err, nbdtest.EINVAL)
		if _, err := c.Read(0, 4096, 0); err != nil {
			t.Fatalf("out of step: %v", err)
		}
	})
	for _, cmd := range []uint16{nbdtest.CmdWrite, nbdtest.CmdFlush, 99} {
		c := a.extended(t, "rw")
		c.Send(nbdtest.Request{Cmd: cmd, Flags: nbdtest.PayloadLen, Len: 32<<20 + 1})
		if err := c.Ended(); err != nil {
			t.Errorf("command %d with a payload above the maximum: %v", cmd, err)
		}
	}
	c = a.extended(t, "rw")
	c.Write((&q{Cmd: nbdtest.CmdRead, Len: 512}).Append(nil)) // a compact request
	c.Write(make([]byte, 4))
	if err := c.Ended(); err != nil {
		t.Error(err)
	}
	a.alive(t)
}

// A vast is a disk larger than compact headers can ask about at once. It
// remembers the last range that was zeroed, trimmed or prefetched.
type vast struct{ asked chan string }

const vastSize = 1 << 50

func (v vast) Size() int64 { return vastSize }

func (v vast) ReadAt(_ context.Context, p []byte, off int64) error {
	clear(p)
	return block.CheckRange(off, int64(len(p)), vastSize)
}

func (v vast) WriteAt(context.Context, []byte, int64) error { return nil }
func (v vast) Flush(context.Context) error                  { return nil }

func (v vast) say(what string, off, n int64) error {
	v.asked <- fmt.Sprintf("%s %d+%d", what, off, n)
	return nil
}

func (v vast) Zero(_ context.Context, off, n int64, mode block.ZeroMode) error {
	return v.say(fmt.Sprint("zero", mode), off, n)
}
func (v vast) Discard(_ context.Context, off, n int64) error  { return v.say("trim", off, n) }
func (v vast) Prefetch(_ context.Context, off, n int64) error { return v.say("cache", off, n) }

func (v vast) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	return block.Extent{Off: off, Len: n, Kind: block.Absent}, nil
}

// TestExtendedLengths has requests about more than 4 GiB.
func TestExtendedLengths(t *testing.T) {
	v := vast{make(chan string, 1)}
	a := serve(t)
	a.exports.byName["vast"] = nbd.Export{Disk: v}
	c := a.extended(t, "vast")
	const off, n = 1 << 40, 1<<45 + 512
	for want, do := range map[string]func() error{
		"zero0": func() error { return c.Zero(off, n, 0) },
		"zero1": func() error { return c.Zero(off, n, nbdtest.NoHole) },
		"zero2": func() error { return c.Zero(off, n, nbdtest.FastZero) },
		"zero3": func() error { return c.Zero(off, n, nbdtest.FastZero|nbdtest.NoHole) },
		"trim":  func() error { return c.Trim(off, n, nbdtest.FUA) },
		"cache": func() error { return c.Cache(off, n) },
	} {
		if err := do(); err != nil {
			t.Errorf("%s: %v", want, err)
		} else if got := <-v.asked; got != fmt.Sprintf("%s %d+%d", want, uint64(off), uint64(n)) {
			t.Errorf("the disk was asked for %s, want %s", got, want)
		}
	}
	got, err := c.Status(off, n, 0)
	if err != nil || fmt.Sprint(got) != fmt.Sprintf("[{%d 3}]", uint64(n)) {
		t.Errorf("status %v, %v", got, err)
	}
	want(t, c.Trim(1, vastSize, 0), nbdtest.EINVAL)
	want(t, c.Zero(vastSize-1, 1<<63, 0), nbdtest.ENOSPC)
	want(t, c.Cache(1<<63, 1<<63), nbdtest.EINVAL)
	_, err = c.Read(0, 1<<40, 0)
	want(t, err, nbdtest.EINVAL)
	if _, err := c.Read(vastSize-512, 512, 0); err != nil {
		t.Fatalf("out of step: %v", err)
	}
}

// TestSlowZeroes has a disk that zeroes by writing.
func TestSlowZeroes(t *testing.T) {
	a := serve(t)
	a.exports.byName["slow"] = nbd.Export{Disk: slowZeroes{a.disk}}
	c := a.enter(t, "slow")
	c.WriteAt(pattern(4096, 1), 0, 0)
	for _, flags := range []uint16{nbdtest.FastZero, nbdtest.FastZero | nbdtest.NoHole} {
		want(t, c.Zero(0, 4096, flags), nbdtest.ENOTSUP)
		got, err := c.Read(0, 4096, 0)
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, got, pattern(4096, 1))
	}
	want(t, c.Zero(0, 4096, nbdtest.NoHole), 0)
}

// slowZeroes hides all but what a block.Device has.
type slowZeroes struct{ d *memory }

func (s slowZeroes) Size() int64 { return s.d.Size() }
func (s slowZeroes) ReadAt(ctx context.Context, p []byte, off int64) error {
	return s.d.ReadAt(ctx, p, off)
}
func (s slowZeroes) WriteAt(ctx context.Context, p []byte, off int64) error {
	return s.d.WriteAt(ctx, p, off)
}
func (s slowZeroes) Flush(ctx context.Context) error { return s.d.Flush(ctx) }
