package exports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/catalog"
)

const (
	// pieceSize is how much of a disk is read at once for a raw image.
	pieceSize = 1 << 20

	// progressEvery is how often a task is written down while bytes flow.
	progressEvery = time.Second

	// endTime bounds what is written down when all is over.
	endTime = 30 * time.Second

	// endTries and endPause say how often that is tried while the catalog
	// is away.
	endTries = 6
	endPause = 200 * time.Millisecond
)

// progress is how far the copying has come.
type progress struct{ done, total atomic.Int64 }

func (p *progress) set(done, total int64) {
	p.done.Store(done)
	p.total.Store(total)
}

// run copies, and writes down how it ended. It owns the snapshot and the disk.
func (c *capture) run(ctx context.Context) {
	err := c.wait(ctx)
	if err == nil {
		err = c.copy(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if e := c.dropSource(ctx); e != nil {
		c.e.log.WarnContext(ctx, "the snapshot of a capture could not be deleted; the next start tries again",
			"task", c.id, "overlay", c.req.Overlay.ID, "err", e)
	}
	if err == nil && c.req.Image.Protected {
		_, err = c.e.cfg.Catalog.UpdateImage(ctx, c.image.ID, func(img *catalog.Image) error {
			img.Protected = true
			return nil
		})
	}
	if err != nil {
		err = c.giveUp(ctx, err)
	}
	c.end(ctx, err)
}

// errImageDeleted is how somebody ends a capture that is under way.
var errImageDeleted = errors.New("the image was deleted before the capture was done")

// giveUp removes the image, and returns why the capture failed.
func (c *capture) giveUp(ctx context.Context, cause error) error {
	if _, err := c.e.cfg.Catalog.Image(ctx, c.image.ID); errors.Is(err, fs.ErrNotExist) {
		return errImageDeleted
	}
	return errors.Join(cause, c.dropImage(ctx))
}

// wait waits for a slot.
func (c *capture) wait(ctx context.Context) error {
	select {
	case c.e.captures.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := c.e.cfg.Catalog.UpdateTask(ctx, c.id, func(t *catalog.Task) error {
		t.Status = catalog.TaskProcessing
		return nil
	})
	if err != nil {
		<-c.e.captures.slots
	}
	return err
}

// copy brings the disk of the snapshot into the image. It gives the slot back.
func (c *capture) copy(ctx context.Context) error {
	defer func() { <-c.e.captures.slots }()
	snap, err := c.disk.vol.snaps.OpenSnapshot(ctx, c.snapshot)
	if err != nil {
		return err
	}
	defer snap.Close()
	src := c.disk.vol.over(snap)
	size, err := c.size(ctx, src)
	if err != nil {
		return err
	}
	c.progress.set(0, src.Size())
	stop := c.report(ctx)
	defer stop()

	body, w := io.Pipe()
	encoded := make(chan error, 1)
	go func() {
		err := c.encode(ctx, w, src)
		w.CloseWithError(err)
		encoded <- err
	}()
	err = c.e.cfg.Ingest.Put(ctx, c.image.ID, body, size, c.req.Store)
	body.CloseWithError(io.ErrClosedPipe) // the encoder must not wait for a reader that has gone
	if e := <-encoded; e != nil && !errors.Is(e, io.ErrClosedPipe) {
		return fmt.Errorf("read the overlay: %w", e) // this is why the body broke off
	}
	return err
}

// size returns how many bytes the image will have.
func (c *capture) size(ctx context.Context, src block.Reader) (int64, error) {
	if c.image.DiskFormat == "raw" {
		return src.Size(), nil
	}
	return qcow2.EncodedSize(ctx, src, qcow2.EncodeOptions{})
}

func (c *capture) encode(ctx context.Context, w io.Writer, src block.Reader) error {
	if c.image.DiskFormat == "raw" {
		return writeRaw(ctx, w, src, c.progress.set)
	}
	return qcow2.Encode(ctx, w, src, qcow2.EncodeOptions{Progress: c.progress.set})
}

// writeRaw writes the bytes of src in order, without reading what is zero.
func writeRaw(ctx context.Context, w io.Writer, src block.Reader, progress func(done, total int64)) error {
	buf := make([]byte, min(pieceSize, src.Size()))
	for ext, err := range block.Extents(ctx, src, 0, src.Size()) {
		if err != nil {
			return err
		}
		if ext.Kind != block.Data {
			clear(buf)
		}
		for off := ext.Off; off < ext.End(); off += pieceSize {
			p := buf[:min(pieceSize, ext.End()-off)]
			if ext.Kind == block.Data {
				if err := src.ReadAt(ctx, p, off); err != nil {
					return err
				}
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
			progress(off+int64(len(p)), src.Size())
		}
	}
	return nil
}

// report writes the progress down from time to time, until it is stopped.
func (c *capture) report(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				c.note(ctx)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// note writes the progress down. That it fails is seen at the end.
func (c *capture) note(ctx context.Context) {
	c.e.cfg.Catalog.UpdateTask(ctx, c.id, func(t *catalog.Task) error {
		t.Progress = c.at()
		t.Message = fmt.Sprintf("Copied %d MiB", t.Progress.Done>>20)
		return nil
	})
}

func (c *capture) at() catalog.Progress {
	return catalog.Progress{Done: c.progress.done.Load(), Total: c.progress.total.Load()}
}

// end writes down how the capture ended.
func (c *capture) end(ctx context.Context, cause error) {
	now := c.e.cfg.Now()
	log := c.e.log.With("task", c.id, "overlay", c.req.Overlay.ID, "image", c.image.ID, "request_id", c.req.RequestID)
	err := c.close(ctx, now, cause)
	for try := 1; errors.Is(err, catalog.ErrUnavailable) && try < endTries && ctx.Err() == nil; try++ {
		time.Sleep(time.Duration(try) * c.e.pause)
		err = c.close(ctx, now, cause)
	}
	if err != nil {
		log.ErrorContext(ctx, "how a capture ended could not be written down; the next start does", "err", err)
	}
	switch {
	case errors.Is(cause, errImageDeleted) || errors.Is(cause, context.Canceled):
		log.InfoContext(ctx, "a capture was ended", "err", cause)
		return
	case cause != nil:
		log.ErrorContext(ctx, "a capture failed", "err", cause)
		return
	}
	log.InfoContext(ctx, "a capture has become an image", "took", now.Sub(c.task.CreatedAt))
}

// close ends the task.
func (c *capture) close(ctx context.Context, now time.Time, cause error) error {
	_, err := c.e.cfg.Catalog.UpdateTask(ctx, c.id, func(t *catalog.Task) error {
		t.ExpiresAt = now.Add(c.e.cfg.TaskLife)
		if cause != nil {
			t.Status, t.Message = catalog.TaskFailure, failure(cause)
			return nil
		}
		t.Status, t.Message = catalog.TaskSuccess, ""
		t.Progress = catalog.Progress{Done: c.req.Overlay.Size, Total: c.req.Overlay.Size}
		t.Result = map[string]any{"image_id": c.image.ID}
		return nil
	})
	return err
}

// failure is what a task says to its owner.
func failure(cause error) string {
	switch {
	case errors.Is(cause, context.Canceled):
		return stoppedText
	case errors.Is(cause, errImageDeleted):
		return "The image was deleted before the capture was done."
	}
	return "The capture failed and its image was removed: " + cause.Error()
}

// stoppedText is the message of a capture that a stop of the gateway ended.
const stoppedText = "The gateway was stopped before the capture was done. Its image was removed; capture again."
