package servers

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startTimeout bounds a server's start. It is long: the machine may be busy
// with other tests.
const startTimeout = 3 * time.Minute

// A Process is a server's process, which tests pause, kill and start again.
type Process struct {
	// Name is the process's name in messages.
	Name string

	line  []string // command line
	env   []string // besides the environment
	log   string   // file
	ready func() error

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

// launch starts a process, waits until ready returns nil, and ends it with the
// test. The directory takes its log.
func launch(t TB, p *Process, dir string) *Process {
	t.Helper()
	launchAll(t, dir, p)
	return p
}

// launchAll is launch for processes that start at the same time, perhaps
// because none is ready without the others.
func launchAll(t TB, dir string, all ...*Process) {
	t.Helper()
	for _, p := range all {
		p.log = filepath.Join(dir, p.Name+".log")
		t.Cleanup(func() {
			if t.Failed() || p.gone() {
				t.Logf("end of the log of %s:\n%s", p.Name, p.Log(2<<10))
			}
			p.end(syscall.SIGKILL)
		})
		p.Launch(t)
	}
	for _, p := range all {
		p.WaitReady(t)
	}
}

// Start starts the process, again after a Kill or Stop, and waits until it
// serves.
func (p *Process) Start(t TB) {
	t.Helper()
	p.Launch(t)
	p.WaitReady(t)
}

// Launch is Start that does not wait.
func (p *Process) Launch(t TB) {
	t.Helper()
	if err := p.start(); err != nil {
		t.Fatalf("start %s: %v", p.Name, err)
	}
}

func (p *Process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return errors.New("it is running")
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.line[0], p.line[1:]...)
	cmd.Env = append(environ(), p.env...)
	cmd.Dir = filepath.Dir(p.log)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		// The signal is sent when the thread ends that started the process,
		// so that thread stays as long as the process does.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	p.cmd, p.done = cmd, done
	return nil
}

// environ is the environment without what would lead a server or its tools to
// another one of their kind.
func environ() []string {
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); {
		case strings.HasPrefix(name, "CEPH_"), strings.HasPrefix(name, "OS_"), strings.HasPrefix(name, "ETCD"),
			strings.HasPrefix(name, "AWS_"), strings.HasPrefix(name, "VGW_"), strings.HasSuffix(strings.ToLower(name), "_proxy"):
		default:
			env = append(env, kv)
		}
	}
	return append(env, "PYTHONWARNINGS=ignore")
}

// WaitReady waits until the process serves.
func (p *Process) WaitReady(t TB) {
	t.Helper()
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
		err := p.ready()
		if err == nil {
			return
		}
		select {
		case <-p.Done():
			t.Fatalf("%s ended before it was ready:\n%s", p.Name, p.Log(8<<10))
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready after %v: %v\n%s", p.Name, startTimeout, err, p.Log(8<<10))
		}
	}
}

// Pause stops the process where it is, as a machine that hangs: connections
// stay open and nobody answers.
func (p *Process) Pause(t TB) { t.Helper(); p.signal(t, syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume(t TB) { t.Helper(); p.signal(t, syscall.SIGCONT) }

// Kill ends the process as kill -9 does, paused or not, and waits until it is
// gone.
func (p *Process) Kill(t TB) {
	t.Helper()
	if err := p.end(syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", p.Name, err)
	}
}

// Stop asks the process to end and waits until it has, at most a minute.
func (p *Process) Stop(t TB) {
	t.Helper()
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatalf("stop %s: %v", p.Name, err)
	}
}

func (p *Process) signal(t TB, s syscall.Signal) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		t.Fatalf("%v to %s: it is not running", s, p.Name)
	}
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%v to %s: %v\n%s", s, p.Name, err, p.Log(4<<10))
	}
}

func (p *Process) end(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	err := p.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.cmd.Process.Kill()
		<-p.done
		err = fmt.Errorf("it did not end within a minute of %v", s)
	}
	p.cmd = nil
	return err
}

// gone says whether the process has ended although nobody asked it to.
func (p *Process) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// PID returns the process's id, 0 if it is not running.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Done is closed when the process that was started last has ended.
func (p *Process) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// LogFile returns the file of the log; it is in the folder of the server's
// files.
func (p *Process) LogFile() string { return p.log }

// Log returns the last n bytes of the log, over all its starts.
func (p *Process) Log(n int) string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-n):])
}

// try runs a program to its end. The error holds what it said.
func try(env []string, stdin string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(environ(), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// Its children could keep the pipes open for ever.
	cmd.WaitDelay = 10 * time.Second
	timer := time.AfterFunc(startTimeout, func() { cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, end(stdout), end(stderr))
	}
	return stdout.String(), nil
}

func end(b bytes.Buffer) []byte { return b.Bytes()[max(0, b.Len()-8<<10):] }

// answersTCP says whether somebody accepts connections on a loopback port.
func answersTCP(port int) func() error {
	return func() error {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// answersHTTP says whether somebody answers a GET, with whatever status below
// 500.
func answersHTTP(url string) func() error {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return func() error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode >= 500 {
			return fmt.Errorf("GET %s: %s", url, resp.Status)
		}
		return nil
	}
}
