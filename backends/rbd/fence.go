//go:build rbd

package rbd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// Takeover fences whoever has an overlay open: its client goes on the
// cluster's blocklist, then its lock is broken. The caller has made sure
// before, in the catalog, that it is its own turn. Nothing that the old writer
// sends from then on has an effect that the new one could see.
func (s *Store) Takeover(ctx context.Context, key string) error {
	return s.with(ctx, "take over", key, s.fence)
}

func (s *Store) fence(c *conn, name string) error {
	// A reader leaves no trace: should we die now, nobody has to wait for us.
	im, err := rbd.OpenImageReadOnly(c.io, name, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	c.settle()
	defer im.Close()
	_, lockers, err := im.ListLockers()
	if err != nil {
		return err
	}
	id, err := im.GetId()
	if err != nil {
		return err
	}
	header := "rbd_header." + id
	shut := map[string]bool{}
	for _, l := range lockers {
		s.log.Warn("fence the last writer of an overlay", "image", name, "client", l.Client, "address", l.Addr)
		if err := blocklist(c, l.Addr, fenceTime); err != nil {
			return fmt.Errorf("blocklist %s: %w", l.Addr, err)
		}
		shut[l.Addr] = true
		// Not librbd's way, which would put the client on the list again, for
		// an hour only.
		_, err := c.io.BreakLock(header, "rbd_lock", l.Client, l.Cookie)
		if err = explain(err); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("break the lock of %s: %w", l.Client, err)
		}
	}
	return s.forgetDead(c, im, header, shut)
}

const (
	// answerTime is how long a client has to answer before it is taken for
	// dead. The cluster counts whole seconds.
	answerTime = time.Second

	// silentTime is how long a client that did not answer stays on the
	// blocklist. It never had the lock, so all that counts is that the cluster
	// stops to wait for it.
	silentTime = time.Hour
)

// forgetDead shuts out those who died with an image open, but for shut, who are
// already. The cluster keeps them for half a minute, and whatever is told to
// all who have the image open waits five seconds for each, or fails. Those who
// answer stay.
func (s *Store) forgetDead(c *conn, im *rbd.Image, header string, shut map[string]bool) error {
	watchers, err := im.ListWatchers()
	if err != nil {
		return err
	}
	watchers = slices.DeleteFunc(watchers, func(w rbd.ImageWatcher) bool { return shut[w.Addr] })
	if len(watchers) == 0 {
		return nil
	}
	// An empty message says that the header has changed.
	_, silent, err := c.io.NotifyWithTimeout(header, nil, answerTime)
	if err = explain(err); err != nil && !errors.Is(err, syscall.ETIMEDOUT) {
		return fmt.Errorf("ask who has it open: %w", err)
	}
	for _, w := range watchers {
		if !slices.ContainsFunc(silent, func(t rados.NotifyTimeout) bool {
			return int64(t.NotifierID) == w.Id && uint64(t.WatcherID) == w.Cookie
		}) {
			continue
		}
		s.log.Warn("shut out a client that died with an overlay open", "image", im.GetName(), "client", w.Id, "address", w.Addr)
		if err := blocklist(c, w.Addr, silentTime); err != nil {
			return fmt.Errorf("blocklist %s: %w", w.Addr, err)
		}
	}
	return nil
}

// blocklist shuts a client out, and returns when every request of ours takes
// word of it along: an OSD hears of it with the first one, at the latest, and
// takes nothing more of the client before it answers.
func blocklist(c *conn, addr string, long time.Duration) error {
	seconds := json.RawMessage(strconv.FormatFloat(long.Seconds(), 'f', 1, 64)) // a number without a point is refused
	_, err := monitor(c, "osd blocklist", map[string]any{"blocklistop": "add", "addr": addr, "expire": seconds})
	if err != nil {
		return err
	}
	return explain(c.rados.WaitForLatestOSDMap())
}
