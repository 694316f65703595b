package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

func create(t testing.TB, cfg Config) *Journal {
	t.Helper()
	j, err := Create(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func reopen(t testing.TB, j *Journal, cfg Config) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// write appends one record of n bytes, all b.
func write(t testing.TB, j *Journal, n int, b byte) Record {
	t.Helper()
	recs := []Record{{Kind: Write, Off: int64(b) << 20, Len: int64(n), Data: bytes.Repeat([]byte{b}, n)}}
	if err := j.Append(t.Context(), recs); err != nil {
		t.Fatal(err)
	}
	return recs[0]
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is the first byte of each payload from start on.
func content(t testing.TB, j *Journal) string {
	t.Helper()
	var s strings.Builder
	for r, err := range j.Records(t.Context(), j.Stats().Start) {
		must(t, err)
		s.WriteByte(r.Data[0])
	}
	return s.String()
}

func TestReopen(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "a", "b"), ID: "x", Epoch: 3, FileSize: 64 << 10}
	j := create(t, cfg)
	if _, err := Create(t.Context(), cfg); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create again: %v", err)
	}
	var last Record
	for i := range 40 {
		last = write(t, j, 4096, byte('a'+i%26))
	}
	must(t, j.Sync(t.Context()))
	j = reopen(t, j, cfg)
	if got, want := content(t, j), "abcdefghijklmnopqrstuvwxyzabcdefghijklmn"; got != want {
		t.Errorf("after reopening: %q, want %q", got, want)
	}
	r := write(t, j, 10, 'Z')
	if r.Next <= last.Next {
		t.Errorf("positions go back from %d to %d", last.Next, r.Next)
	}
	must(t, j.Trim(last.Next))
	j = reopen(t, j, cfg)
	if got := content(t, j); got != "Z" {
		t.Errorf("after Trim and reopening: %q", got)
	}
	must(t, j.Trim(r.Next))
	j = reopen(t, j, cfg)
	if st := j.Stats(); st.Start != st.End {
		t.Errorf("the journal should be empty: %+v", st)
	}
}

func TestForeign(t *testing.T) {
	cfg := Config{FS: crashfs.New(), Dir: "d", ID: "x", Epoch: 3, FileSize: 16 << 10}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing: %v", err)
	}
	if _, err := Identify(cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Identify of nothing: %v", err)
	}
	j := create(t, cfg)
	write(t, j, 100, 'a')
	must(t, j.Close())
	other := cfg
	other.ID = "y"
	if _, err := Open(t.Context(), other); !errors.Is(err, ErrForeign) {
		t.Errorf("Open for another overlay: %v", err)
	}
	later := cfg
	later.Epoch = 4
	if _, err := Open(t.Context(), later); !errors.Is(err, ErrForeign) {
		t.Errorf("Open for another epoch: %v", err)
	}
	if id, err := Identify(later); err != nil || id != (Identity{"x", 3}) {
		t.Errorf("Identify = %+v, %v", id, err)
	}
	must(t, SetAside(later, "aside/d.3"))
	if _, err := Open(t.Context(), cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of what was set aside: %v", err)
	}
	create(t, later)
	if err := SetAside(later, "aside/d.3"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("SetAside to a name that is taken: %v", err)
	}
	old, err := OpenOld(t.Context(), Config{FS: cfg.FS, Dir: "aside/d.3"})
	must(t, err)
	defer old.Close()
	if got := content(t, old); got != "a" || old.Identity() != (Identity{"x", 3}) {
		t.Errorf("the old journal of %+v has %q", old.Identity(), got)
	}
	for name, err := range map[string]error{
		"Append": old.Append(t.Context(), []Record{{Kind: Zero}}), "Sync": old.Sync(t.Context()), "Trim": old.Trim(1),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s on an old journal: %v", name, err)
		}
	}
}

func TestLock(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), FileSize: 16 << 10}
	j := create(t, cfg)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("Open of an open journal: %v", err)
	}
	write(t, j, 5, 'a')
	old, err := OpenOld(t.Context(), cfg)
	must(t, err)
	must(t, old.Close())
	if _, err := Open(t.Context(), cfg); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("Open of an open journal that somebody looked into: %v", err)
	}
	reopen(t, j, cfg)
}

func TestRemove(t *testing.T) {
	cfg := Config{FS: crashfs.New(), Dir: "d", FileSize: 16 << 10}
	must(t, Remove(cfg))
	j := create(t, cfg)
	write(t, j, 100, 'a')
	must(t, j.Close())
	must(t, Remove(cfg))
	if entries, err := cfg.FS.ReadDir("d"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove the folder has %v, %v", entries, err)
	}
	j = create(t, cfg)
	if got := content(t, j); got != "" {
		t.Errorf("a new journal has %q", got)
	}
	// Half a Remove.
	write(t, j, 100, 'a')
	must(t, j.Close())
	must(t, cfg.FS.Remove("d/"+stateName))
	if got := content(t, create(t, cfg)); got != "" {
		t.Errorf("a new journal has %q", got)
	}
}

func flip(t *testing.T, fsys localfs.FS, name string, at int64) {
	t.Helper()
	f, err := fsys.Open(name, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

func TestNewerVersion(t *testing.T) {
	cfg := Config{FS: crashfs.New(), Dir: "d", FileSize: 16 << 10}
	must(t, create(t, cfg).Close())
	flip(t, cfg.FS, "d/"+stateName, 9)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrNewer) {
		t.Errorf("Open of a newer version: %v", err)
	}
	flip(t, cfg.FS, "d/"+stateName, 9)
	flip(t, cfg.FS, "d/"+stateName, 20)
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrDamaged) {
		t.Errorf("Open with a damaged header: %v", err)
	}
}

// TestDamage tells what a loss of power does from what it cannot do.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, fsys localfs.FS, recs []Record){
		"a record": func(t *testing.T, fsys localfs.FS, recs []Record) {
			flip(t, fsys, "d/"+fileName(1), recs[1].Pos%(16<<10))
		},
		"a record's header": func(t *testing.T, fsys localfs.FS, recs []Record) {
			flip(t, fsys, "d/"+fileName(1), recs[1].Pos%(16<<10)-30)
		},
		"a file's header": func(t *testing.T, fsys localfs.FS, recs []Record) { flip(t, fsys, "d/"+fileName(2), 30) },
		"no file":         func(t *testing.T, fsys localfs.FS, recs []Record) { must(t, fsys.Remove("d/"+fileName(2))) },
		"no first file":   func(t *testing.T, fsys localfs.FS, recs []Record) { must(t, fsys.Remove("d/"+fileName(1))) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{FS: crashfs.New(), Dir: "d", FileSize: 16 << 10}
			j := create(t, cfg)
			var recs []Record
			for i := range 9 {
				recs = append(recs, write(t, j, 3000, byte('a'+i)))
				must(t, j.Sync(t.Context()))
			}
			must(t, j.Close())
			damage(t, cfg.FS, recs)
			if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrDamaged) {
				t.Fatalf("Open: %v", err)
			}
			old, err := OpenOld(t.Context(), cfg)
			must(t, err)
			want := content(t, old)
			must(t, old.Close())
			cfg.Salvage = true
			j, err = Open(t.Context(), cfg)
			must(t, err)
			if got := content(t, j); got != want || !strings.HasPrefix("abcdefghi", got) || len(got) > 4 {
				t.Errorf("it has %q", got)
			}
			write(t, j, 3000, 'X')
			cfg.Salvage = false
			if got := content(t, reopen(t, j, cfg)); got != want+"X" {
				t.Errorf("after salvage and one more: %q", got)
			}
		})
	}
}

func TestBadRecords(t *testing.T) {
	j := create(t, Config{FS: crashfs.New(), Dir: "d", FileSize: 16 << 10})
	for name, r := range map[string]Record{
		"no kind":          {},
		"unknown kind":     {Kind: 9},
		"short data":       {Kind: Write, Len: 5, Data: make([]byte, 4)},
		"data of zeros":    {Kind: Zero, Len: 4, Data: make([]byte, 4)},
		"negative offset":  {Kind: Zero, Off: -1},
		"overflow":         {Kind: Zero, Off: 1 << 62, Len: 1 << 62},
		"too much data":    {Kind: Mark, Data: make([]byte, j.MaxData()+1)},
		"negative length":  {Kind: Discard, Len: -1},
		"far too much":     {Kind: Write, Len: 1 << 20, Data: make([]byte, 1<<20)},
		"data of discards": {Kind: Discard, Len: 1, Data: []byte{1}},
	} {
		if err := j.Append(t.Context(), []Record{r}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, j.Append(t.Context(), []Record{{Kind: Mark, Data: make([]byte, j.MaxData())}}))
	must(t, j.Append(t.Context(), nil))
	if err := j.ReadAt(make([]byte, 1), 1<<40); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("ReadAt behind the end: %v", err)
	}
}

// fill appends until there is no room.
func fill(t *testing.T, j *Journal) (n int, last Record) {
	t.Helper()
	for {
		recs := []Record{{Kind: Write, Len: 4096, Data: make([]byte, 4096)}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := j.Append(ctx, recs)
		cancel()
		if err != nil {
			if j.cfg.Full == Fail && !errors.Is(err, syscall.ENOSPC) || j.cfg.Full == Wait && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			select {
			case <-j.Crowded():
			default:
				t.Error("no signal that it is crowded")
			}
			return n, last
		}
		n, last = n+1, recs[0]
	}
}

func TestLimit(t *testing.T) {
	for _, full := range []Full{Wait, Fail} {
		cfg := Config{FS: crashfs.New(), Dir: "d", FileSize: 32 << 10, Limit: 160 << 10, Full: full}
		j := create(t, cfg)
		n, last := fill(t, j)
		if st := j.Stats(); n != 5*6 || st.Bytes != 160<<10 || st.Limit != st.Bytes {
			t.Fatalf("room for %d records, %+v", n, st)
		}
		if full == Wait {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			var ok, gone int
			var mu sync.Mutex
			for i := range 10 {
				ctx := ctx
				if i%2 == 0 {
					ctx = t.Context()
				}
				wg.Go(func() {
					err := j.Append(ctx, []Record{{Kind: Mark, Data: make([]byte, 4096)}})
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						ok++
					case errors.Is(err, context.Canceled):
						gone++
					default:
						t.Error(err)
					}
				})
			}
			time.Sleep(20 * time.Millisecond)
			cancel()
			for { // all who want to are gone while the others still wait
				mu.Lock()
				left := gone
				mu.Unlock()
				if left == 5 {
					break
				}
				time.Sleep(time.Millisecond)
			}
			must(t, j.Trim(last.Next))
			wg.Wait()
			if ok != 5 || gone != 5 {
				t.Errorf("%d appended, %d gone", ok, gone)
			}
		} else {
			must(t, j.Trim(last.Next))
		}
		must(t, j.Append(t.Context(), []Record{{Kind: Zero, Len: 1}}))
		if st := j.Stats(); st.Bytes > 4*32<<10 {
			t.Errorf("trimmed files stay: %+v", st)
		}
		must(t, j.Sync(t.Context()))
	}
}

func TestWaitEndsWithClose(t *testing.T) {
	j := create(t, Config{FS: crashfs.New(), Dir: "d", FileSize: 16 << 10, Limit: 1})
	fill(t, j)
	err := make(chan error)
	for range 3 {
		go func() { err <- j.Append(context.Background(), []Record{{Kind: Mark, Data: make([]byte, 9000)}}) }()
	}
	time.Sleep(10 * time.Millisecond)
	must(t, j.Close())
	for range 3 {
		if err := <-err; !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Append of a journal that is closed meanwhile: %v", err)
		}
	}
	if err := j.Sync(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Sync after Close: %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	fsys := crashfs.New()
	cfg := Config{FS: fsys, Dir: "d", FileSize: 32 << 10, Full: Fail}
	j := create(t, cfg)
	r := write(t, j, 100, 'a')
	fsys.SetCapacity(50 << 10)
	fill(t, j)
	must(t, j.Sync(t.Context()))
	if err := j.Err(); err != nil {
		t.Errorf("a full disk broke the journal: %v", err)
	}
	fsys.SetCapacity(0)
	write(t, j, 100, 'b')
	must(t, j.ReadAt(make([]byte, 100), r.Pos))
	must(t, j.Sync(t.Context()))
	j = reopen(t, j, cfg)
	if got := content(t, j); got[0] != 'a' || got[len(got)-1] != 'b' {
		t.Errorf("it has %q", got)
	}
}

// TestFullInWrite is for file systems that have no space for what was
// allocated.
func TestFullInWrite(t *testing.T) {
	fsys := crashfs.New()
	cfg := Config{FS: fsys, Dir: "d", FileSize: 32 << 10, Full: Fail}
	j := create(t, cfg)
	write(t, j, 100, 'a')
	failing := true
	fsys.SetFault(func(op, name string) error {
		if op == "write" && failing {
			return syscall.ENOSPC
		}
		return nil
	})
	if err := j.Append(t.Context(), []Record{{Kind: Mark, Data: []byte("x")}}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Append to a full disk: %v", err)
	}
	failing = false
	write(t, j, 100, 'b')
	must(t, j.Sync(t.Context()))
	if got := content(t, reopen(t, j, cfg)); got != "ab" {
		t.Errorf("it has %q", got)
	}
}

type refuse struct{}

func (refuse) Take(int64) error { return fmt.Errorf("the reserve: %w", syscall.ENOSPC) }

func TestGuard(t *testing.T) {
	j := create(t, Config{FS: crashfs.New(), Dir: "d", FileSize: 32 << 10, Full: Fail, Guard: refuse{}})
	if n, _ := fill(t, j); n != 0 {
		t.Errorf("%d records against the guard", n)
	}
}

// TestBroken fails each kind of operation once: nothing that was acknowledged
// is lost, and nothing is acknowledged any more.
func TestBroken(t *testing.T) {
	for _, op := range []string{"sync", "write", "syncdir"} {
		fsys := crashfs.New()
		cfg := Config{FS: fsys, Dir: "d", FileSize: 32 << 10}
		j := create(t, cfg)
		r := write(t, j, 100, 'a')
		must(t, j.Sync(t.Context()))
		for range 7 {
			write(t, j, 4096, 'b')
		}
		once := false
		fsys.SetFault(func(o, name string) error {
			if o == op && !once {
				once = true
				return syscall.EIO
			}
			return nil
		})
		err := j.Append(t.Context(), []Record{{Kind: Mark, Data: []byte{'c'}}})
		if err == nil {
			err = j.Sync(t.Context())
		}
		if !errors.Is(err, syscall.EIO) || !once {
			t.Fatalf("%s fails: %v", op, err)
		}
		for name, err := range map[string]error{
			"Append": j.Append(t.Context(), []Record{{Kind: Zero}}), "Sync": j.Sync(t.Context()), "Err": j.Err(), "Trim": j.Trim(r.Next),
		} {
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%s after a failed %s: %v", name, op, err)
			}
		}
		must(t, j.ReadAt(make([]byte, 100), r.Pos))
		if got := content(t, reopen(t, j, cfg)); got[0] != 'a' {
			t.Errorf("it has %q", got)
		}
	}
}

func TestReadError(t *testing.T) {
	fsys := crashfs.New()
	cfg := Config{FS: fsys, Dir: "d", FileSize: 32 << 10}
	j := create(t, cfg)
	r := write(t, j, 100, 'a')
	must(t, j.Close())
	fsys.SetFault(func(op, name string) error {
		if op == "read" && strings.HasSuffix(name, suffix) {
			return syscall.EIO
		}
		return nil
	})
	// An error of the disk is not the end of the records.
	if _, err := Open(t.Context(), cfg); !errors.Is(err, syscall.EIO) {
		t.Errorf("Open: %v", err)
	}
	fsys.SetFault(nil)
	j, err := Open(t.Context(), cfg)
	must(t, err)
	must(t, j.ReadAt(make([]byte, 100), r.Pos))
	flip(t, fsys, "d/"+fileName(1), r.Pos%(32<<10)+50)
	for _, err := range j.Records(t.Context(), j.Stats().Start) {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("Records over a payload that went bad: %v", err)
		}
	}
}

// TestTrimUnderReaders reads at random while files are trimmed and used again.
func TestTrimUnderReaders(t *testing.T) {
	var mu sync.Mutex
	var recs []Record
	j := create(t, Config{Dir: t.TempDir(), FileSize: 64 << 10, Limit: 256 << 10, Apply: func(r []Record) {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range r {
			r.Data = r.Data[:1]
			recs = append(recs, r)
		}
	}})
	var readers, writers sync.WaitGroup
	stop := make(chan struct{})
	var hits, misses int
	for i := range 4 {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			p := make([]byte, 4096)
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				if len(recs) == 0 {
					mu.Unlock()
					continue
				}
				r := recs[max(0, len(recs)-1-rng.IntN(80))]
				mu.Unlock()
				err := j.ReadAt(p, r.Pos)
				mu.Lock()
				switch {
				case errors.Is(err, ErrTrimmed):
					misses++
				case err != nil:
					t.Error(err)
				default:
					hits++
					if want := bytes.Repeat(r.Data, 4096); !bytes.Equal(p, want) {
						t.Errorf("other bytes at %d", r.Pos)
					}
				}
				mu.Unlock()
			}
		})
	}
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-j.Crowded():
				st := j.Stats()
				for r, err := range j.Records(t.Context(), st.Start) {
					if err != nil || r.Next > (st.Start+st.End)/2 {
						break
					}
					if err := j.Trim(r.Next); err != nil {
						t.Error(err)
					}
				}
			}
		}
	})
	for i := range 4 {
		writers.Go(func() {
			for k := range 500 {
				err := j.Append(t.Context(), []Record{{Kind: Write, Len: 4096, Data: bytes.Repeat([]byte{byte(i*50 + k)}, 4096)}})
				if err == nil && k%50 == 0 {
					err = j.Sync(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	if !slices.IsSortedFunc(recs, func(a, b Record) int { return int(a.Next - b.Next) }) || len(recs) != 2000 {
		t.Errorf("Apply was told of %d records, or not in order", len(recs))
	}
	t.Logf("%d reads, %d trimmed", hits, misses)
}

func TestNoAllocation(t *testing.T) {
	j := create(t, Config{Dir: t.TempDir(), FileSize: 16 << 20})
	recs := []Record{{Kind: Write, Len: 4096, Data: make([]byte, 4096)}}
	p := make([]byte, 4096)
	n := testing.AllocsPerRun(500, func() {
		if err := j.Append(t.Context(), recs); err != nil {
			t.Fatal(err)
		}
		if err := j.ReadAt(p, recs[0].Pos); err != nil {
			t.Fatal(err)
		}
	})
	if n >= 1 {
		t.Errorf("Append and ReadAt allocate %v times", n)
	}
}

// TestLargeData compares what is written in pieces with what is read.
func TestLargeData(t *testing.T) {
	j := create(t, Config{Dir: t.TempDir()})
	rng := rand.New(rand.NewPCG(1, 1))
	var recs []Record
	for range 60 {
		p := make([]byte, rng.IntN([]int{100, 70 << 10, 300 << 10, 5 << 20}[rng.IntN(4)]))
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		recs = append(recs, Record{Kind: Write, Len: int64(len(p)), Data: p})
	}
	must(t, j.Append(t.Context(), recs))
	i := 0
	for r, err := range j.Records(t.Context(), j.Stats().Start) {
		must(t, err)
		p := make([]byte, len(r.Data))
		must(t, j.ReadAt(p, r.Pos))
		if !same(r, recs[i]) || !bytes.Equal(p, r.Data) {
			t.Errorf("record %d of %d bytes is another", i, len(recs[i].Data))
		}
		i++
	}
	if i != len(recs) {
		t.Errorf("%d records of %d", i, len(recs))
	}
}
