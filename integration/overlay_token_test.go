//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// TestSecrets uses attachments in all the ways there are, right and wrong,
// with the log at its loudest, and wants no token anywhere but in the answer
// that made it.
func TestSecrets(t *testing.T) {
	gateway.Need(t, "qemu-img", "nbdinfo")
	g := gateway.Start(t, "--log-level", "debug")
	path, _ := randomFile(t, 1<<20)
	base := upload(t, g, "base", "raw", path)
	overlay := newOverlay(t, g, base, "")
	var tokens []string
	var shown bytes.Buffer // what anybody may see
	look := func(paths ...string) {
		for _, p := range paths {
			_, text := get(t, p)
			shown.WriteString(text)
		}
	}
	for _, a := range []struct{ what, id, mode, transport string }{
		{"overlay_id", overlay, "rw", "unix"}, {"overlay_id", overlay, "ro", "tcp"},
		{"image_id", base, "ro", "unix"}, {"image_id", base, "ephemeral", "tcp"},
	} {
		id, name := attachment(t, g, a.what, a.id, a.mode, a.transport)
		token := strings.TrimPrefix(name, "attach/")
		tokens = append(tokens, token)
		where := map[string][2]string{"unix": {"unix", g.Socket}, "tcp": {"tcp", g.NBD}}
		c, err := nbdtest.Open(where[a.transport][0], where[a.transport][1], name)
		if err != nil {
			t.Fatal(err)
		}
		c.Read(0, 512, 0)
		c.WriteAt([]byte("x"), 0, 0)
		c.Read(1<<40, 512, 0) // fails
		look(g.Debug+"/debug/nbd", g.URL+"/platter/v1/attachments", g.URL+"/platter/v1/attachments/"+id, g.URL+"/platter/v1/overlays")
		other := where[map[string]string{"unix": "tcp", "tcp": "unix"}[a.transport]]
		for _, wrong := range []struct{ network, addr, name string }{
			{other[0], other[1], name}, {other[0], other[1], name + "x"}, {other[0], other[1], "overlay/" + token}, {other[0], other[1], token},
			{other[0], other[1], name + "/native"}, {other[0], other[1], "ephemeral/" + token},
		} {
			if _, err := nbdtest.Open(wrong.network, wrong.addr, wrong.name); err == nil {
				t.Errorf("%s opens for %s", wrong.name, wrong.network)
			} else {
				fmt.Fprintln(&shown, err)
			}
		}
		_, err = g.Try(t.Context(), "nbdinfo", g.Export(name+"-no"))
		if err == nil {
			t.Error("a wrong token opens")
		}
		if a.mode != "ro" {
			call(t, g, "DELETE", "/platter/v1/attachments/"+id, "", 204)
			if _, err := c.Read(0, 512, 0); err == nil {
				t.Error("a detached client can read")
			}
		}
		c.Close()
	}
	waitTask(t, g, beginCapture(t, g, overlay, `{}`).ID)
	look(g.URL+"/v2/tasks", g.Debug+"/metrics", g.Debug+"/debug/pprof/goroutine?debug=1", g.URL+"/platter/v1/overlays/"+overlay)
	backup := filepath.Join(t.TempDir(), "backup")
	out := g.Command(t, gateway.Binary(t, "platterd"), "--data-dir", g.Dir, "backup", backup)
	look(g.URL + "/v2/images")
	g.Stop(t)
	for name, text := range map[string]string{
		"the log": g.Log(), "an answer": shown.String(), "the backup": string(readAll(t, backup)), "the output of backup": out,
	} {
		for _, token := range tokens {
			if at := strings.Index(text, token); at >= 0 {
				t.Errorf("%s has a token: …%s…", name, text[max(0, at-200):at+20])
			}
		}
	}
	for _, name := range append(tree(t, g.Dir, "overlays"), tree(t, g.Dir, "etcd")...) {
		text, err := os.ReadFile(name)
		for _, token := range tokens {
			if err == nil && bytes.Contains(text, []byte(token)) {
				t.Errorf("%s has a token", name)
			}
		}
	}
}

// TestReconnect: a client whose old connection is half dead comes back, with
// its attachment, at once, also after a restart, and finds its disk; nobody
// else gets it.
func TestReconnect(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	path, _ := randomFile(t, 1<<20)
	base := upload(t, g, "base", "raw", path)
	overlay := newOverlay(t, g, base, "")
	rw, rwName := attachment(t, g, "overlay_id", overlay, "rw", "tcp")
	_, ephemeral := attachment(t, g, "image_id", base, "ephemeral", "tcp")
	for round := range 2 {
		for _, name := range []string{rwName, ephemeral} {
			text := []byte(fmt.Sprintf("round %d of %.10s", round, name))
			dead, err := nbdtest.Open("tcp", g.NBD, name) // stays open: its machine has lost power
			if err != nil {
				t.Fatal(err)
			}
			defer dead.Close()
			if err := dead.WriteAt(text, 4096, 0); err != nil {
				t.Fatal(err)
			}
			if err := dead.Flush(); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			c, err := nbdtest.Open("tcp", g.NBD, name)
			if err != nil {
				t.Fatalf("the same attachment is refused: %v", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("reconnecting took %v", took)
			}
			if got, err := c.Read(4096, len(text), 0); err != nil || !bytes.Equal(got, text) {
				t.Errorf("after reconnecting it reads %q, %v", got, err)
			}
			c.Close()
		}
		body := fmt.Sprintf(`{"overlay_id":%q,"mode":"rw"}`, overlay)
		if text := call(t, g, "POST", "/platter/v1/attachments", body, 409); !strings.Contains(string(text), rw) {
			t.Errorf("a second writer is told %s", text)
		}
		if _, err := nbdtest.Open("unix", g.Socket, "overlay/"+overlay); err == nil || !strings.Contains(err.Error(), rw) {
			t.Errorf("a second writer over NBD is told %v", err)
		}
		if round == 0 {
			g.Stop(t)
			g.Run(t)
			c, err := nbdtest.Open("tcp", g.NBD, ephemeral)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := c.Read(4096, 7, 0); string(got) != "round 0" {
				t.Errorf("after a restart the ephemeral disk has %q", got)
			}
			c.Close()
		}
	}
}

// TestUnusedAttachmentsExpire, and those in use do not.
func TestUnusedAttachmentsExpire(t *testing.T) {
	g := gateway.Start(t, "--mount", "off", "PLATTER_LIMITS_ATTACH_UNUSED=6s")
	path, _ := randomFile(t, 1<<20)
	base := upload(t, g, "base", "raw", path)
	overlay := newOverlay(t, g, base, "")
	unused, unusedName := attachment(t, g, "overlay_id", overlay, "rw", "unix")
	used, usedName := attachment(t, g, "image_id", base, "ephemeral", "unix")
	c, err := nbdtest.Open("unix", g.Socket, usedName)
	if err != nil {
		t.Fatal(err)
	}
	c.Disconnect()
	c.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if status, _ := get(t, g.URL+"/platter/v1/attachments/"+unused); status == 404 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("an attachment that nobody uses does not expire")
		}
	}
	if _, err := nbdtest.Open("unix", g.Socket, unusedName); err == nil {
		t.Error("an expired token opens")
	}
	if _, err := nbdtest.Open("unix", g.Socket, usedName); err != nil {
		t.Errorf("an attachment that was used has expired: %v", err)
	}
	var a struct {
		Lease struct {
			ExpiresAt *string `json:"expires_at"`
		}
	}
	json.Unmarshal(call(t, g, "GET", "/platter/v1/attachments/"+used, "", 200), &a)
	if a.Lease.ExpiresAt != nil {
		t.Errorf("one in use expires at %s", *a.Lease.ExpiresAt)
	}
	attachment(t, g, "overlay_id", overlay, "rw", "unix") // the overlay is free again
}

// TestDetachIsTheEnd: when DELETE has answered, not a byte changes any more,
// however many connections were writing.
func TestDetachIsTheEnd(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	path, _ := randomFile(t, 1<<20)
	overlay := newOverlay(t, g, upload(t, g, "base", "raw", path), "")
	for round := range 5 {
		id, name := attachment(t, g, "overlay_id", overlay, "rw", "unix")
		var work sync.WaitGroup
		var cut sync.Map
		for i := range 4 {
			c, err := nbdtest.Open("unix", g.Socket, name)
			if err != nil {
				t.Fatal(err)
			}
			work.Go(func() {
				defer c.Close()
				for n := byte(0); c.WriteAt(bytes.Repeat([]byte{n}, 32<<10), uint64(i)*64<<10, 0) == nil; n++ {
				}
				cut.Store(i, time.Now())
			})
		}
		time.Sleep(30 * time.Millisecond)
		call(t, g, "DELETE", "/platter/v1/attachments/"+id, "", 204)
		c, err := nbdtest.Open("unix", g.Socket, "overlay/"+overlay)
		if err != nil {
			t.Fatalf("round %d: after the detach: %v", round, err)
		}
		before, err := c.Read(0, 1<<20, 0)
		work.Wait()
		time.Sleep(20 * time.Millisecond)
		after, err2 := c.Read(0, 1<<20, 0)
		if err != nil || err2 != nil || !bytes.Equal(before, after) {
			t.Errorf("round %d: the disk changed after the detach (%v, %v)", round, err, err2)
		}
		c.Close()
	}
}
