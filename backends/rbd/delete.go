//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/ceph/go-ceph/rbd"
)

// trashMark in the metadata of an image says that we moved it to the trash,
// and so may free it. What others have there is theirs.
const trashMark = "platter_trash"

// Delete removes an object, or what is left of an unfinished one. While it
// has clones it is syscall.EBUSY, or waits in the trash if the Config says so.
// One that is open here waits there in any case; one that somebody else has
// open for writing is syscall.EBUSY.
func (s *Store) Delete(ctx context.Context, key string) error {
	return s.with(ctx, "delete", key, func(c *conn, name string) error {
		err := s.remove(c, name)
		if errors.Is(explain(err), fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

func (s *Store) remove(c *conn, name string) error {
	clones, err := usersOf(c, name)
	if errors.Is(explain(err), fs.ErrNotExist) {
		return removeRest(c, name)
	}
	if err != nil {
		return err
	}
	if clones > 0 && !s.cfg.Trash {
		return busy(fmt.Sprintf("%d clones need it", clones))
	}
	if clones > 0 || s.reading(name, 0) > 0 {
		return s.moveToTrash(c, name)
	}
	im, err := rbd.OpenImage(c.io, name, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	err = dropSnapshots(im, false)
	if e := im.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = rbd.RemoveImage(c.io, name)
	}
	if isBusy(err) {
		return busy("somebody has just opened or cloned it")
	}
	return err
}

// removeRest removes an image that cannot be opened since there is none. The
// name may be taken all the same, by one that was half made or half removed
// when its client died; else it is fs.ErrNotExist.
func removeRest(c *conn, name string) error { return rbd.RemoveImage(c.io, name) }

// scrap removes an image that was not finished. It may have its snapshot all
// the same: whose making was not answered in time.
func (s *Store) scrap(c *conn, name string) error {
	err := explain(rbd.RemoveImage(c.io, name))
	if errors.Is(err, syscall.ENOTEMPTY) {
		err = explain(s.remove(c, name))
	}
	return err
}

// usersOf counts the clones of an image's snapshot "snap". Whoever has the
// image open as a writer or, like QEMU, as if it were one, is syscall.EBUSY:
// to remove even the snapshot would pull it away from under them. Readers such
// as ours are seen by nobody.
func usersOf(c *conn, name string) (clones int, err error) {
	im, err := rbd.OpenImageReadOnly(c.io, name, rbd.NoSnapshot)
	if err != nil {
		return 0, err
	}
	c.settle()
	defer im.Close()
	watchers, err := im.ListWatchers()
	if err != nil {
		return 0, err
	}
	for _, w := range watchers {
		return 0, busy("the client at " + w.Addr + " has it open")
	}
	if err := im.SetSnapshot(snapName); errors.Is(explain(err), fs.ErrNotExist) {
		return 0, nil // an unfinished one
	} else if err != nil {
		return 0, err
	}
	list, err := im.ListChildrenAttributes()
	return len(list), err
}

// dropSnapshots removes the snapshots of an image: ours, or with all those
// that others made, too. librbd removes a snapshot in two steps. One that got
// no further than the first, since its client died, bears another name and is
// known by its number alone; if it is kept there because a clone needs it, it
// is syscall.EBUSY.
func dropSnapshots(im *rbd.Image, all bool) error {
	snaps, err := im.GetSnapshotNames()
	if err != nil {
		return err
	}
	var whole []string
	for _, info := range snaps {
		kind, err := im.GetSnapNamespaceType(info.Id)
		switch {
		case err != nil:
			return err
		case kind == rbd.SnapNamespaceTypeTrash:
			if err := im.RemoveSnapByID(info.Id); err != nil {
				return err
			}
		case info.Name != snapName && !all:
			return busy("it has the snapshot " + info.Name)
		default:
			whole = append(whole, info.Name)
		}
	}
	for _, name := range whole {
		snap := im.GetSnapshot(name)
		protected, err := snap.IsProtected()
		if err == nil && protected {
			err = snap.Unprotect()
		}
		if err == nil {
			err = snap.Remove()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moveToTrash frees the name of an image and leaves its bytes to who has it
// open and to its clones.
func (s *Store) moveToTrash(c *conn, name string) error {
	im, err := rbd.OpenImage(c.io, name, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	err = im.SetMetadata(trashMark, name)
	if e := im.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return rbd.GetImage(c.io, name).Trash(0)
}

// purge frees what we moved to the trash and nobody needs any more.
func (s *Store) purge(c *conn) { s.purgeName(c, "") }

// purgeName does that for one name. What fails is tried again at the next
// Open and the next deletion.
func (s *Store) purgeName(c *conn, name string) {
	list, err := rbd.GetTrashList(c.io)
	if err != nil {
		s.log.Warn("list the pool's trash", "pool", s.cfg.Pool, "error", err)
		return
	}
	for _, t := range list {
		if name != "" && t.Name != name || s.reading(t.Name, 0) > 0 {
			continue
		}
		if err := purgeOne(c, t.Id); err != nil && !isBusy(err) {
			s.log.Warn("free an image in the trash", "image", t.Name, "id", t.Id, "error", err)
		}
	}
}

// purgeOne frees one image in the trash, if it is ours and has no clones.
func purgeOne(c *conn, id string) error {
	im, err := rbd.OpenImageById(c.io, id, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	mark, err := im.GetMetadata(trashMark)
	if err == nil && mark != "" {
		err = dropSnapshots(im, true)
	}
	if e := im.Close(); err == nil {
		err = e
	}
	if errors.Is(explain(err), fs.ErrNotExist) {
		return nil // no mark: not ours
	}
	if err != nil || mark == "" {
		return err
	}
	return rbd.TrashRemove(c.io, id, true)
}
