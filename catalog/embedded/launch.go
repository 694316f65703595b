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
	"sync/atomic"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
)

// launch starts etcd. On data that it cannot read etcd panics, on whatever
// goroutine it is, mostly by way of its logger: here that is an error like
// any other, which says what to do. Once etcd has started, what its logger is
// told to end the process with ends it again.
func launch(ctx context.Context, cfg *embed.Config, logger *zap.Logger) (*embed.Etcd, error) {
	if err := errors.Join(whole(cfg.Dir), room(cfg.Dir)); err != nil {
		return nil, err
	}
	t := &trap{failed: make(chan error, 1)}
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger.WithOptions(
		zap.WithPanicHook(hook{t, zapcore.WriteThenPanic}), zap.WithFatalHook(hook{t, zapcore.WriteThenFatal})))
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
		t.disarmed.Store(true)
		return etcd, err
	case err := <-t.failed:
		return nil, remedy(cfg.Dir, err)
	case <-ctx.Done():
		return nil, ctx.Err()
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
func room(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil // what is wrong with the folder is said by who opens it
	}
	blocks := st.Bavail
	if os.Geteuid() == 0 { // what is kept back for root is for us
		blocks = st.Bfree
	}
	if free := int64(blocks) * st.Bsize; free < leastRoom {
		return remedy(dir, fmt.Errorf("%d bytes are free where %s is, and the catalog wants %d: %w", free, dir, int64(leastRoom), syscall.ENOSPC))
	}
	return nil
}

// remedy says what to do about a database that cannot be used.
func remedy(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return fmt.Errorf("the disk is full: make room and start again: %w", err)
	}
	return fmt.Errorf("the database is damaged: move %s away and fill a new one with platterd restore FILE, from the last backup: %w", dir, err)
}

// A trap takes what ends etcd while it starts.
type trap struct {
	failed   chan error
	disarmed atomic.Bool
}

func (t *trap) fail(err error) {
	select {
	case t.failed <- err:
	default: // the first failure is the cause
	}
}

// A hook is what a logger does after an entry that ends the process.
type hook struct {
	trap *trap
	then zapcore.CheckWriteHook
}

// OnWrite ends the goroutine instead, as long as etcd starts.
func (h hook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	if h.trap.disarmed.Load() {
		h.then.OnWrite(entry, fields)
		return
	}
	err := errors.New(entry.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok {
			err = fmt.Errorf("%s: %w", entry.Message, cause)
		}
	}
	h.trap.fail(err)
	runtime.Goexit()
}
