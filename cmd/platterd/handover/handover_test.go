package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes the test's own program the new process, where it is asked to.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HANDOVER_DIR"); dir != "" {
		if err := successor(dir, os.Getenv("HANDOVER_DOES")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// successor does what a test wants of the new process.
func successor(dir, does string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	p, err := Ask(ctx, dir, "new")
	if err != nil {
		return err
	}
	items, err := p.Receive(ctx)
	if err != nil {
		return err
	}
	switch does {
	case "hang":
		time.Sleep(time.Minute)
	case "die":
		return errors.New("as told")
	}
	if err := p.Taken(ctx); err != nil {
		return err
	}
	for i := range items { // prove what came: each connection says its state
		if items[i].Kind != Conn {
			continue
		}
		c, err := items[i].Conn()
		if err != nil {
			return err
		}
		if _, err := c.Write(items[i].State); err != nil {
			return err
		}
		c.Close()
	}
	return nil
}

// start starts the new process.
func start(t *testing.T, dir, does string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HANDOVER_DIR="+dir, "HANDOVER_DOES="+does)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// meet waits for the process that asks.
func meet(t *testing.T, dir string) *Successor {
	t.Helper()
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	c, err := ln.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Meet(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// pairs makes connections, with their other ends.
func pairs(t *testing.T, n int) (ours, theirs []*net.UnixConn) {
	t.Helper()
	for range n {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, list := range []*[]*net.UnixConn{&ours, &theirs} {
			f := os.NewFile(uintptr(fds[i]), "pair")
			c, err := net.FileConn(f)
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			*list = append(*list, c.(*net.UnixConn))
		}
	}
	return ours, theirs
}

func itemsOf(conns []*net.UnixConn, state func(i int) []byte) []Item {
	var items []Item
	for i, c := range conns {
		items = append(items, Item{Kind: Conn, Name: fmt.Sprint("client ", i), State: state(i), Open: c})
	}
	return items
}

// wantSaid checks that each connection was used by who has it now.
func wantSaid(t *testing.T, theirs []*net.UnixConn, state func(i int) []byte) {
	t.Helper()
	for i, c := range theirs {
		want := state(i)
		c.SetDeadline(time.Now().Add(time.Minute))
		got := make([]byte, len(want))
		for n := 0; n < len(got); {
			more, err := c.Read(got[n:])
			if err != nil {
				t.Fatalf("connection %d: after %d bytes: %v", i, n, err)
			}
			n += more
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("connection %d has another one's state", i)
		}
	}
}

// TestThousands hands over 3000 connections, a large state among them, to
// another process.
func TestThousands(t *testing.T) {
	dir := t.TempDir()
	cmd := start(t, dir, "")
	s := meet(t, dir)
	if s.PID != cmd.Process.Pid || s.Version != "new" {
		t.Errorf("process %d %q asked; it was %d", s.PID, s.Version, cmd.Process.Pid)
	}
	ours, theirs := pairs(t, 3000)
	large := bytes.Repeat([]byte("large "), 6<<20)
	state := func(i int) []byte {
		if i == 1234 {
			return large
		}
		return fmt.Appendf(nil, "state of %d", i)
	}
	begin := time.Now()
	if err := s.Welcome(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Give(t.Context(), itemsOf(ours, state), begin); err != nil {
		t.Fatal(err)
	}
	if err := s.Taken(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("3000 connections in %v", time.Since(begin))
	if err := s.Go(); err != nil {
		t.Fatal(err)
	}
	for _, c := range ours {
		c.Close()
	}
	wantSaid(t, theirs, state)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestNobodyComes: whatever the new process does before "go", the old one has
// everything still, and the new one is gone.
func TestNobodyComes(t *testing.T) {
	for _, does := range []string{"die", "hang", "killed"} {
		t.Run(does, func(t *testing.T) {
			dir := t.TempDir()
			cmd := start(t, dir, strings.Replace(does, "killed", "hang", 1))
			s := meet(t, dir)
			ours, theirs := pairs(t, 3)
			if err := errors.Join(s.Welcome(t.Context()), s.Give(t.Context(), itemsOf(ours, func(int) []byte { return nil }), time.Now())); err != nil {
				t.Fatal(err)
			}
			if does == "killed" {
				cmd.Process.Kill()
			}
			within, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := s.Taken(within)
			if err == nil {
				t.Fatal("it took over")
			}
			if err := s.Dismiss(t.Context(), err); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the new process ended well")
			}
			for i, c := range ours {
				if _, err := c.Write([]byte{1}); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
				if _, err := theirs[i].Read(make([]byte, 1)); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
}

// TestOldDies: who has everything and hears no word goes on; who has not
// everything does not.
func TestOldDies(t *testing.T) {
	dir := t.TempDir()
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, whole := range []bool{true, false} {
		ours, _ := pairs(t, 1)
		done := make(chan error, 1)
		go func() {
			c, err := ln.AcceptUnix()
			if err != nil {
				done <- err
				return
			}
			s, err := Meet(t.Context(), c)
			if err != nil {
				done <- err
				return
			}
			defer s.Close()
			err = s.Welcome(t.Context())
			if whole {
				err = errors.Join(err, s.Give(t.Context(), itemsOf(ours, func(int) []byte { return nil }), time.Now()), s.Taken(t.Context()))
			}
			done <- err
		}()
		p, err := Ask(t.Context(), dir, "v")
		if err != nil {
			t.Fatal(err)
		}
		items, err := p.Receive(t.Context())
		if (err == nil) != whole {
			t.Fatalf("whole %t: received %d, %v", whole, len(items), err)
		}
		if whole {
			if err := p.Taken(t.Context()); err != nil {
				t.Errorf("the old process has died: %v", err)
			}
			items[0].Close()
		}
		p.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestRefused: another protocol, noise and silence get nothing.
func TestRefused(t *testing.T) {
	for name, say := range map[string]func(l *link){
		"protocol": func(l *link) { l.sendJSON(msgHello, hello{Protocol + 1, "v"}) },
		"noise":    func(l *link) { l.conn.Write(bytes.Repeat([]byte{0xff}, 100)) },
		"end":      func(l *link) { l.conn.Close() },
		"no hello": func(l *link) { l.send(msgTaken, nil, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pairs(t, 1)
			go say(newLink(theirs[0]))
			if s, err := Meet(t.Context(), ours[0]); err == nil {
				t.Fatalf("met %+v", s)
			}
		})
	}
	ours, _ := pairs(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Meet(ctx, ours[0]); err == nil {
		t.Fatal("met somebody who says nothing")
	}
}

// TestAskSaysWhy: the refusal's reason arrives.
func TestAskSaysWhy(t *testing.T) {
	dir := t.TempDir()
	if _, err := Ask(t.Context(), dir, "v"); !errors.Is(err, ErrNobody) {
		t.Errorf("where nobody is: %v", err)
	}
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.AcceptUnix()
		if err != nil {
			return
		}
		s, err := Meet(t.Context(), c)
		if err != nil {
			return
		}
		s.Refuse(t.Context(), "not today")
		s.Close()
	}()
	if _, err := Ask(t.Context(), dir, "v"); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("refused: %v", err)
	}
}

// TestListen: the socket is for nobody else, in a directory with a long name
// too, and one that a crash left is replaced.
func TestListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		ln, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(dir, socketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v %v", info, err)
		}
		ln.Close()
	}
}

// FuzzItems: what is understood is what was said.
func FuzzItems(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendItem(appendItem(nil, Lock, "lock", nil), Conn, "c", []byte("state")))
	f.Add([]byte{1, 0xff, 0xff, 0})
	f.Add([]byte{2, 0, 1, 'x', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		items, err := parseItems(b)
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		var again []byte
		for _, i := range items {
			if i.FD != -1 {
				t.Errorf("descriptor %d out of nothing", i.FD)
			}
			again = appendItem(again, i.Kind, i.Name, i.State)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%x was read as %x", b, again)
		}
	})
}

// FuzzReceive: no stream of bytes makes the new process hang, or hold more
// than it was sent.
func FuzzReceive(f *testing.F) {
	body, _ := json.Marshal(end{Items: 0})
	f.Add(append(putHead(msgEnd, len(body)), body...))
	f.Add(append(putHead(msgItems, 3), 1, 0, 0))
	f.Add(putHead(msgItems, maxMessage))
	f.Add(append(putHead(msgRefused, 2), "no"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := pairs(t, 1)
		go func() {
			theirs[0].Write(b)
			theirs[0].Close()
		}()
		p := &Predecessor{link: newLink(ours[0])}
		items, err := p.Receive(t.Context())
		if err == nil && len(items) != 0 {
			t.Errorf("%d items without descriptors", len(items))
		}
		p.Close()
	})
}
