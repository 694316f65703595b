// Package guest builds a small Debian guest and boots it in QEMU, for tests
// that want to see a real kernel use a disk.
//
// The guest's kernel and initrd come from outside the disk; its first program
// says on the serial console what it sees and obeys commands from there. KVM
// is used where a guest really boots under it, which is found out by trying;
// otherwise TCG.
package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Files are a built guest.
type Files struct {
	Kernel, Initrd string
	Disk           string // root.qcow2, 1 GiB virtual
	Accel          string // "kvm" or "tcg"
}

// Build makes the guest in a folder of the cache, unless it is there already,
// and finds out which accelerator boots it. It takes minutes the first time.
func Build(ctx context.Context) (Files, error) {
	cache := os.Getenv("PLATTER_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return Files{}, err
		}
		cache = filepath.Join(base, "platter-test")
	}
	dir := filepath.Join(cache, "guest")
	_, here, _, _ := runtime.Caller(0)
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(here), "build.sh"), dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return Files{}, fmt.Errorf("guest: build: %w\n%s", err, out)
	}
	f := Files{
		Kernel: filepath.Join(dir, "vmlinuz"),
		Initrd: filepath.Join(dir, "initrd"),
		Disk:   filepath.Join(dir, "root.qcow2"),
		Accel:  "kvm",
	}
	if !f.bootsUnderKVM(ctx) {
		f.Accel = "tcg"
	}
	return f, nil
}

// bootsUnderKVM tries it: /dev/kvm may open and still not run a guest.
func (f Files) bootsUnderKVM(ctx context.Context) bool {
	if k, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		return false
	} else {
		k.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	m, err := f.boot(ctx, "platter.probe", "")
	if err != nil {
		return false
	}
	defer m.Kill()
	return m.Expect(ctx, "alive") == nil
}

// Boot starts a machine with the disk that further arguments of QEMU name,
// quoted for a shell: what "platter attach --print qemu" prints. Who boots it
// ends it, with PowerOff or Kill; ctx ends it too.
func (f Files) Boot(ctx context.Context, disk string) (*Machine, error) {
	return f.boot(ctx, "", disk)
}

func (f Files) boot(ctx context.Context, words, disk string) (*Machine, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", `exec qemu-system-x86_64 "$@" `+disk, "sh",
		"-accel", f.Accel, "-m", "384", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", f.Kernel, "-initrd", f.Initrd, "-append", "console=ttyS0 quiet panic=-1 tsc=unstable "+words)
	// Should the test itself be killed, the machine ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, pipe := io.Pipe()
	cmd.Stdout, cmd.Stderr = pipe, pipe
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	m := &Machine{cmd: cmd, in: in, lines: make(chan string, 4096), done: make(chan struct{})}
	go m.listen(out)
	go func() {
		m.err = cmd.Wait()
		pipe.Close()
		close(m.done)
	}()
	return m, nil
}

// A Machine is a running guest.
type Machine struct {
	// Mark is what the guest found in its file /mark, "none" if there is no
	// such file; known once it is Up.
	Mark string

	cmd   *exec.Cmd
	in    io.Writer
	lines chan string // of the console
	said  []string    // all that Expect saw
	done  chan struct{}
	err   error // after done
}

// listen passes the console's lines on; it ends with the machine.
func (m *Machine) listen(out io.Reader) {
	defer close(m.lines)
	for s := bufio.NewScanner(out); s.Scan(); {
		select {
		case m.lines <- strings.TrimRight(s.Text(), "\r"):
		default: // nobody listens: a chatty console must not stop the guest
		}
	}
}

// Up waits until the guest can take commands.
func (m *Machine) Up(ctx context.Context) error {
	line, err := m.Line(ctx, "mark ")
	if err != nil {
		return err
	}
	m.Mark = strings.TrimPrefix(line, "mark ")
	return m.Expect(ctx, "up ")
}

// Expect waits until the guest has said a line that contains text.
func (m *Machine) Expect(ctx context.Context, text string) error {
	_, err := m.Line(ctx, text)
	return err
}

// Line waits until the guest has said a line that contains text and returns
// what follows "GUEST: " in it.
func (m *Machine) Line(ctx context.Context, text string) (string, error) {
	for {
		select {
		case line, ok := <-m.lines:
			if !ok {
				return "", fmt.Errorf("guest: ended before it said %q; it said:\n%s", text, strings.Join(m.said, "\n"))
			}
			m.said = append(m.said, line)
			if _, what, ours := strings.Cut(line, "GUEST: "); ours && strings.Contains(what, text) {
				return what, nil
			}
		case <-ctx.Done():
			return "", fmt.Errorf("guest: waiting for %q: %w; it said:\n%s", text, ctx.Err(), strings.Join(m.said, "\n"))
		}
	}
}

// Send gives the guest a command.
func (m *Machine) Send(format string, args ...any) error {
	_, err := fmt.Fprintf(m.in, format+"\n", args...)
	return err
}

// PowerOff lets the guest shut down and waits until it has.
func (m *Machine) PowerOff(ctx context.Context) error {
	if err := m.Send("poweroff"); err != nil {
		return err
	}
	if err := m.Expect(ctx, "bye"); err != nil {
		return err
	}
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), m.Kill())
	}
}

// Kill ends the machine at once, as a loss of power would.
func (m *Machine) Kill() error {
	err := m.cmd.Process.Kill()
	<-m.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
