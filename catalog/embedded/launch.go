package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// launch starts etcd. On data that it cannot read, or a disk that takes no
// more, etcd panics or ends the process, on whatever goroutine it is, mostly by
// way of its logger: here that is an error like any other, which says what to
// do. The trap tells of what comes after the start.
func launch(ctx context.Context, cfg *embed.Config, logger *zap.Logger) (*embed.Etcd, *trap, error) {
	if err := errors.Join(whole(cfg.Dir), room(cfg.Dir)); err != nil {
		return nil, nil, err
	}
	t := &trap{down: make(chan struct{})}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger.WithOptions(zap.WithPanicHook(t), zap.WithFatalHook(t)))
	var etcd *embed.Etcd
	started := make(chan error, 1)
	go func() { // after a failure elsewhere in etcd it may wait for ever: nobody waits for it
		defer func() {
			if p := recover(); p != nil {
				t.fail(fmt.Errorf("etcd cannot read it: %v", p))
			}
		}()
		var err error
		etcd, err = embed.StartEtcd(cfg)
		started <- err
	}()
	select {
	case err := <-started:
		t.serving.Store(true)
		return etcd, t, err
	case <-t.down:
		return nil, nil, remedy(cfg.Dir, t.err)
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// whole refuses half a database: etcd would begin its log anew beside the
// old data, and take changes without making them.
func whole(dir string) error {
	_, dbErr := os.Stat(filepath.Join(dir, "member", "snap", "db"))
	_, walErr := os.Stat(filepath.Join(dir, "member", "wal"))
	if dbErr == nil && errors.Is(walErr, fs.ErrNotExist) {
		return remedy(dir, errors.New("it has no log (member/wal)"))
	}
	return nil
}

// leastRoom is how many bytes must be free on the disk for etcd to start. With
// less it might begin to serve, and would end the process at its next write.
const leastRoom = 4 << 20

// room refuses to start on a full disk.
func room(dir string) error { return wants(dir, leastRoom) }

// Room tells whether a server would surely start in dir. A start reserves a
// further segment of the log, so with less it may or may not: a gateway that
// runs should not be ended for that. An error wraps syscall.ENOSPC.
func Room(dir string) error { return wants(dir, leastRoom+wal.SegmentSizeBytes) }

func wants(dir string, least int64) error {
	free, err := freeBytes(dir)
	if err != nil {
		return nil // what is wrong with the folder is said by who opens it
	}
	if free < least {
		return remedy(dir, fmt.Errorf("%d bytes are free where %s is, and the catalog wants %d: %w", free, dir, least, syscall.ENOSPC))
	}
	return nil
}

// freeBytes returns how much room there is for us on the disk that dir is on.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 { // what is kept back for root is for us
		blocks = st.Bfree
	}
	return int64(blocks) * st.Bsize, nil
}

// remedy says what to do about a database that cannot be used.
func remedy(dir string, err error) error {
	if full(err) {
		return fmt.Errorf("the disk is full: make room and start again: %w", err)
	}
	return fmt.Errorf("the database is damaged: move %s away and fill a new one with platterd restore FILE, from the last backup: %w", dir, err)
}

// full tells whether an error comes of a disk without room.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// A trap takes what etcd wants to end the process for.
type trap struct {
	down    chan struct{} // closed when etcd has failed
	err     error         // the cause, once down
	once    sync.Once
	serving atomic.Bool // etcd has started
}

// fail notes the first failure, which is the cause of the others.
func (t *trap) fail(err error) {
	t.once.Do(func() {
		t.err = err
		close(t.down)
	})
}

// OnWrite is what etcd's logger does after an entry that ends the process: it
// ends the goroutine instead while etcd starts, and holds it for ever later.
// What it has locked stays locked then: nothing may go on behind a failure.
func (t *trap) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(entry.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok {
			err = fmt.Errorf("%s: %w", entry.Message, cause)
		}
	}
	t.fail(err)
	if !t.serving.Load() {
		runtime.Goexit()
	}
	select {}
}
