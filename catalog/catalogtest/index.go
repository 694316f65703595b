package catalogtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// eventually waits for what happens in the background.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(slow); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", slow, what)
		}
	}
}

func testTwoGateways(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	one, two := Start(t, kv, catalog.Config{GatewayID: "1"}), Start(t, kv, catalog.Config{GatewayID: "2"})
	img := must(one.CreateImage(ctx, catalog.Image{}))(t)
	// The other may not know the image yet, but a change asks the KV.
	must(two.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Hidden = true; return nil }))(t)
	// The first one's memory is old now, and its change still loses nothing.
	must(one.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Owner = "p"; return nil }))(t)
	eventually(t, "both gateways have both changes", func() bool {
		a, errA := one.Image(ctx, img.ID)
		b, errB := two.Image(ctx, img.ID)
		return errA == nil && errB == nil && a.Hidden && b.Hidden && a.Owner == "p" && b.Owner == "p"
	})
	must(two.DeleteImage(ctx, img.ID))(t)
	eventually(t, "the image is gone on the other gateway", func() bool {
		_, err := one.Image(ctx, img.ID)
		return errors.Is(err, fs.ErrNotExist)
	})
}

func testOneWriter(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	gateways := []*catalog.Catalog{Start(t, kv, catalog.Config{}), Start(t, kv, catalog.Config{})}
	img := must(gateways[0].CreateImage(ctx, catalog.Image{}))(t)
	const writers, each = 8, 5
	var all sync.WaitGroup
	for w := range writers {
		c := gateways[w%2]
		all.Go(func() {
			for n := 0; n < each; {
				got, err := c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.MinDisk++; return nil })
				if errors.Is(err, catalog.ErrConflict) {
					continue // honest: nothing was changed
				}
				if err != nil {
					t.Error(err)
					return
				}
				n++
				if now := must(c.Image(ctx, img.ID))(t); now.MinDisk < got.MinDisk {
					t.Errorf("wrote %d, read %d after", got.MinDisk, now.MinDisk)
				}
			}
		})
	}
	all.Wait()
	for _, c := range gateways {
		eventually(t, "all increments are there", func() bool { return must(c.Image(ctx, img.ID))(t).MinDisk == writers*each })
	}
	if n := oneOf(t, gateways); n != 1 {
		t.Errorf("%d of two gateways began an upload of one image", n)
	}
}

// oneOf lets all gateways begin an upload of one image at once.
func oneOf(t *testing.T, gateways []*catalog.Catalog) (won int) {
	img := must(gateways[0].CreateImage(t.Context(), catalog.Image{}))(t)
	wins := make([]bool, len(gateways))
	var all sync.WaitGroup
	for i, c := range gateways {
		all.Go(func() {
			_, err := c.BeginUpload(t.Context(), catalog.Upload{ID: fmt.Sprint(i), Image: img.ID, Store: "s", Key: fmt.Sprint(i)})
			wins[i] = err == nil
		})
	}
	all.Wait()
	for _, w := range wins {
		if w {
			won++
		}
	}
	return won
}

func testChanges(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	c, other := Start(t, kv, catalog.Config{}), Start(t, kv, catalog.Config{})
	start := c.Revision()
	img := active(t, other)
	must(other.CreateMember(ctx, catalog.Member{Image: img.ID, Project: "p"}))(t)
	must(other.CreateOverlay(ctx, catalog.Overlay{ID: "ovl", ImageID: img.ID, Engine: "file"}))(t)
	if err := other.DeleteOverlay(ctx, "ovl"); err != nil {
		t.Fatal(err)
	}
	must(other.DeleteImage(ctx, img.ID))(t)
	want := []string{"image " + img.ID, "member " + img.ID + "/p", "overlay ovl", "-overlay ovl", "-image " + img.ID, "-member " + img.ID + "/p"}
	limit, cancel := context.WithTimeout(ctx, slow)
	defer cancel()
	var got []string
	for ch, err := range c.Watch(limit, start) {
		if err != nil {
			t.Fatalf("watch: %v, having %q", err, got)
		}
		if c.Revision() < ch.Revision {
			t.Errorf("change of %d is told when reads show %d", ch.Revision, c.Revision())
		}
		line := ch.Kind + " " + ch.ID
		if ch.Deleted {
			line = "-" + line
		}
		if got = append(got, line); len(got) == len(want) {
			break
		}
	}
	// The order inside one transaction is the KV's own.
	count := map[string]int{}
	for i := range want {
		count[want[i]]++
		count[got[i]]--
	}
	for line, n := range count {
		if n != 0 {
			t.Fatalf("changes %q, want %q (%s)", got, want, line)
		}
	}
}

// testReload makes the index lose track, and build itself anew.
func testReload(t *testing.T, open Open) {
	inner := open(t)
	kv, ctx := NewFaulty(inner), t.Context()
	c, other := Start(t, kv, catalog.Config{}), Start(t, inner, catalog.Config{})
	img := must(c.CreateImage(ctx, catalog.Image{}))(t)
	gone := must(c.CreateImage(ctx, catalog.Image{}))(t)
	kv.Down()
	must(other.DeleteImage(ctx, gone.ID))(t)
	last := must(other.CreateImage(ctx, catalog.Image{Owner: "late"}))(t)
	if compacter, ok := inner.(Compacter); ok {
		if err := compacter.Compact(ctx, last.Revision); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := c.Image(ctx, img.ID); err != nil {
				t.Errorf("a read during the reload: %v", err)
				return
			}
		}
	})
	kv.Up()
	eventually(t, "what happened meanwhile is there", func() bool {
		_, errLast := c.Image(ctx, last.ID)
		_, errGone := c.Image(ctx, gone.ID)
		return errLast == nil && errors.Is(errGone, fs.ErrNotExist)
	})
	for range 5 {
		kv.Forget()
		mine := must(c.CreateImage(ctx, catalog.Image{}))(t)
		if _, err := c.Image(ctx, mine.ID); err != nil {
			t.Errorf("a write during the reload: %v", err)
		}
	}
	close(stop)
	reading.Wait()
	eventually(t, "both agree", func() bool {
		a, b := must(c.Images(ctx, adminQuery()))(t), must(other.Images(ctx, adminQuery()))(t)
		return len(a) == 7 && len(b) == 7
	})
}

func adminQuery() catalog.Query {
	return catalog.Query{Viewer: catalog.Viewer{Admin: true}, Visibility: catalog.VisibilityAll, Hidden: catalog.HiddenAny}
}

func testOutage(t *testing.T, open Open) {
	kv, ctx := NewFaulty(open(t)), t.Context()
	c := Start(t, kv, catalog.Config{})
	img := must(c.CreateImage(ctx, catalog.Image{}))(t)
	if err := c.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	kv.Down()
	if _, err := c.CreateImage(ctx, catalog.Image{}); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("create without the KV: %v, want ErrUnavailable", err)
	}
	if _, err := c.UpdateImage(ctx, img.ID, func(*catalog.Image) error { return nil }); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("update without the KV: %v, want ErrUnavailable", err)
	}
	if _, err := c.DeleteImage(ctx, img.ID); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("delete without the KV: %v, want ErrUnavailable", err)
	}
	eventually(t, "Ready says that the KV is away", func() bool { return errors.Is(c.Ready(), catalog.ErrUnavailable) })
	if got := must(c.Images(ctx, adminQuery()))(t); len(got) != 1 {
		t.Errorf("list without the KV: %v", got)
	}
	kv.Up()
	eventually(t, "Ready says that the KV is back", func() bool { return c.Ready() == nil })
	must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Owner = "p"; return nil }))(t)

	kv.LoseAnswer()
	if _, err := c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Owner = "q"; return nil }); !errors.Is(err, catalog.ErrUnavailable) {
		t.Errorf("update whose answer is lost: %v, want ErrUnavailable", err)
	}
	eventually(t, "the change whose answer was lost is there", func() bool { return must(c.Image(ctx, img.ID))(t).Owner == "q" })
}

func testBackup(t *testing.T, open Open) {
	kv, ctx := open(t), t.Context()
	c := Start(t, kv, catalog.Config{})
	var last catalog.Image
	for range 250 {
		last = active(t, c)
	}
	must(c.CreateOverlay(ctx, catalog.Overlay{ID: "o", ImageID: last.ID, Engine: "file"}))(t)
	dead := active(t, c)
	must(c.DeleteImage(ctx, dead.ID))(t)
	var backup bytes.Buffer
	if err := c.Backup(ctx, &backup); err != nil {
		t.Fatal(err)
	}
	if err := catalog.Restore(ctx, kv, bytes.NewReader(backup.Bytes())); !errors.Is(err, fs.ErrExist) {
		t.Errorf("restore over a catalog: %v, want fs.ErrExist", err)
	}
	into := open(t)
	cut := backup.Bytes()[:backup.Len()*2/3]
	if err := catalog.Restore(ctx, into, bytes.NewReader(cut)); err == nil {
		t.Error("half a backup was restored")
	}
	if _, err := catalog.Open(ctx, into, catalog.Config{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("open of half a restore: %v, want fs.ErrInvalid", err)
	}
	bad := bytes.Replace(backup.Bytes(), []byte("bare"), []byte("bore"), 1)
	if err := catalog.Restore(ctx, into, bytes.NewReader(bad)); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("restore of a damaged backup: %v, want fs.ErrInvalid", err)
	}
	if err := catalog.Restore(ctx, into, &backup); err != nil {
		t.Fatal(err)
	}
	moved := Start(t, into, catalog.Config{})
	a, b := must(c.Images(ctx, adminQuery()))(t), must(moved.Images(ctx, adminQuery()))(t)
	if len(a) != 250 || len(b) != 250 || a[7].ID != b[7].ID || !a[7].UpdatedAt.Equal(b[7].UpdatedAt) {
		t.Errorf("%d images, %d restored", len(a), len(b))
	}
	var used *catalog.InUseError
	if _, err := moved.DeleteImage(ctx, last.ID); !errors.As(err, &used) {
		t.Errorf("delete of an image in use, restored: %v", err)
	}
	if _, err := moved.CreateImage(ctx, catalog.Image{ID: dead.ID}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("id of a deleted image, restored: %v", err)
	}
}
