//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/corpus"
	"github.com/seed-478a8fee/platter/integration/gateway"
)

// A said is how one run of platter ended.
type said struct {
	code     int
	out, err string
}

// cli returns platter with these arguments as a command that is not started.
func cli(t testing.TB, g *gateway.Gateway, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), gateway.Binary(t, "platter"), args...)
	cmd.Env = append(os.Environ(), "PLATTER_URL="+g.URL, "OS_TOKEN=")
	return cmd
}

// typed runs platter as somebody would type it.
func typed(t testing.TB, g *gateway.Gateway, args ...string) said {
	t.Helper()
	cmd := cli(t, g, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must is typed for what must work; it returns the first line of the output.
func must(t testing.TB, g *gateway.Gateway, args ...string) string {
	t.Helper()
	s := typed(t, g, args...)
	if s.code != 0 {
		t.Fatalf("platter %s: exit code %d\n%s%s", strings.Join(args, " "), s.code, s.out, s.err)
	}
	line, _, _ := strings.Cut(s.out, "\n")
	return line
}

// newDisk makes a qcow2 with some data and returns its path.
func newDisk(t testing.TB, size string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", path, size)
	corpus.QemuIO(t, path, "qcow2", []string{"write -P 7 1M 1M", "write -P 9 5M 64k"})
	return path
}

// TestOddNames gives images names that mean something to a shell, a URL, a
// filter or a directory, and finds them again, by name and in the tree.
func TestOddNames(t *testing.T) {
	g := gateway.Start(t)
	disk := newDisk(t, "8M")
	names := []string{"../x", "a/b", "naïve 日本語 ✓", "-dash", " ", "a~b", "%41", "x,y", "in:z", `q"uote`, ".", "..", "image:foo",
		"overlay/x", "tab\there", strings.Repeat("n", 255), strings.Repeat("é", 255)}
	for _, name := range names {
		id := must(t, g, "image", "create", "--name", name, "--file", disk, "-f", "value", "-c", "id")
		if got := must(t, g, "image", "show", "-f", "value", "-c", "id", "--", name); got != id {
			t.Errorf("image show %q finds %s, want %s", name, got, id)
		}
		if got := must(t, g, "image", "show", "-f", "value", "-c", "name", strings.ToUpper(id)); got == "" {
			t.Errorf("image show %s finds nothing", strings.ToUpper(id))
		}
		if got := typed(t, g, "info", "image:"+name); got.code != 0 {
			t.Errorf("info image:%q: %s", name, got.err)
		}
	}
	links, err := os.ReadDir(filepath.Join(g.Mount, "by-name"))
	if err != nil || len(links) != len(names) {
		t.Errorf("by-name has %d entries, want %d: %v", len(links), len(names), err)
	}
	for _, link := range links {
		if _, err := os.Stat(filepath.Join(g.Mount, "by-name", link.Name(), "disk.raw")); err != nil {
			t.Error(err)
		}
	}
	var list []map[string]any
	if s := typed(t, g, "image", "list", "-f", "json"); json.Unmarshal([]byte(s.out), &list) != nil || len(list) != len(names) {
		t.Errorf("image list -f json: %d images\n%s", len(list), s.out)
	}
	for _, name := range names {
		must(t, g, "image", "delete", "--", name)
	}
}

// TestExitCodes holds what scripts rely on, and that every error says what to
// do or who asked.
func TestExitCodes(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, g, "image", "create", "debian", "--file", newDisk(t, "8M"))
	must(t, g, "overlay", "create", "debian", "--name", "vm")
	must(t, g, "attach", "overlay/vm", "--print", "uri")
	if err := syscall.Mkfifo("pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string // in what it says
	}{
		{"image show nosuch", 3, `there is no image "nosuch"`},
		{"image delete no1 no2", 3, "no1\"\nhint: platter image list shows what there is\nplatter: there is no image \"no2"},
		{"image delete debian", 5, "platter overlay delete"},
		{"overlay delete vm", 5, "platter detach"},
		{"attach overlay/vm", 5, "already attached"},
		{"attach overlay/vm --mode ro --print uri", 0, ""},
		{"attach debian --mode rw", 1, "make an overlay"},
		{"detach nosuch", 3, "platter attachment list"},
		{"capture --overlay nosuch --name x", 3, "platter overlay list"},
		{"overlay snapshot vm --delete nosuch", 3, "platter overlay show"},
		{"image unset debian --property nosuch", 3, "platter image show"},
		{"image set debian --min-ram x", 2, "takes a whole number"},
		{"image list --limit", 2, "takes a value"},
		{"image list --foo", 2, "--help"},
		{"image show -dash", 2, "write -- before a name"},
		{"image save debian .", 2, "is a directory"},
		{"image save debian ./nosuch/x", 3, "cannot write ./nosuch/x"},
		{"info pipe", 7, "not a file"},
		{"info no/such", 3, "write image:no/such"},
		{"check --format vpc pipe", 2, "declares one of raw, qcow2"},
		{"convert --to qcow2 -c --compression lz4 debian x", 2, "zlib and zstd"},
		{"--url http://127.0.0.1:1 image list", 6, "platter doctor"},
	} {
		s := typed(t, g, strings.Fields(c.args)...)
		if s.code != c.code || !strings.Contains(s.err, c.want) {
			t.Errorf("platter %s: exit code %d, want %d and %q:\n%s", c.args, s.code, c.code, c.want, s.err)
		}
		if strings.Contains(s.err, ".part") || s.code > 0 && !strings.Contains(s.err, "hint: ") && !strings.Contains(s.err, "request id: ") {
			t.Errorf("platter %s says neither what to do nor who asked:\n%s", c.args, s.err)
		}
	}
}

// TestWritesWhereItIsTold saves to what is not a plain new file.
func TestWritesWhereItIsTold(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	disk := newDisk(t, "8M")
	want := readAll(t, disk)
	must(t, g, "image", "create", "debian", "--file", disk)
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"target": "old", "x.part": "precious", "app": "head"} {
		if err := os.WriteFile(name, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("target", "link"), syscall.Mknod("null", syscall.S_IFCHR|0o666, 1<<8|3)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"link", "x", "null"} {
		must(t, g, "image", "save", "debian", to)
	}
	sameFile(t, "target", want)
	sameFile(t, "x", want)
	sameFile(t, "x.part", []byte("precious"))
	if st, err := os.Lstat("link"); err != nil || st.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", st, err)
	}
	if st, err := os.Stat("target"); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("the mode has changed: %v, %v", st, err)
	}
	if st, err := os.Lstat("null"); err != nil || st.Mode()&fs.ModeCharDevice == 0 {
		t.Errorf("the device is gone: %v, %v", st, err)
	}
	// A standard output that others write to as well, and one that is new.
	for _, c := range [][2]string{{">>", "app"}, {">", "new"}} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", `"$0" convert --to raw image:debian - `+c[0]+" "+c[1], gateway.Binary(t, "platter"))
		cmd.Env = append(os.Environ(), "PLATTER_URL="+g.URL)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	raw := readAll(t, "new")
	sameFile(t, "app", append([]byte("head"), raw...))
	if st, err := os.Stat("new"); err != nil || st.Size() != 8<<20 || st.Sys().(*syscall.Stat_t).Blocks*512 > 2<<20 {
		t.Errorf("the new file is not sparse: %+v", st.Sys())
	}
	if left, _ := filepath.Glob(".*.part"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// pressCtrlC runs platter and interrupts it some time after its work has begun.
// It is false if platter had ended well before.
func pressCtrlC(t *testing.T, g *gateway.Gateway, args string, stdin *os.File, begun func() bool, after time.Duration, want string) bool {
	t.Helper()
	cmd := cli(t, g, strings.Fields(args)...)
	cmd.Stdin = stdin
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for end := time.Now().Add(time.Minute); len(ended) == 0 && !begun(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("platter %s does not begin", args)
		}
	}
	time.Sleep(after)
	pressed := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	err := <-ended
	if err == nil {
		for _, name := range []string{"down.raw", "out.qcow2"} {
			os.Remove(name)
		}
		for _, image := range []string{"up", "captured"} {
			_ = cli(t, g, "image", "delete", image).Run() // most often there is none
		}
		return false
	}
	if cmd.ProcessState.ExitCode() != 130 || !strings.Contains(errs.String(), want) {
		t.Errorf("platter %s: %v\n%s", args, err, errs.String())
	}
	if took := time.Since(pressed); took > 15*time.Second {
		t.Errorf("platter %s ends %v after Ctrl-C", args, took)
	}
	return true
}

// shown returns a function that tells whether an image of that name is there,
// in one of these states.
func shown(t *testing.T, g *gateway.Gateway, name string, states ...string) func() bool {
	return func() bool {
		_, text := get(t, g.URL+"/v2/images?name="+name)
		return slices.ContainsFunc(states, func(state string) bool { return strings.Contains(text, `"status":"`+state+`"`) })
	}
}

// partly tells whether a file is being written in the current folder.
func partly() bool {
	left, _ := filepath.Glob(".platter-*.part")
	return len(left) > 0
}

// TestInterrupted presses Ctrl-C in the middle of everything that takes long:
// it ends at once, with the code of a shell, and nothing half done is left.
func TestInterrupted(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	big, _ := randomFile(t, 300<<20)
	must(t, g, "image", "create", "big", "--file", big)
	must(t, g, "overlay", "create", "big", "--name", "vm")
	t.Chdir(t.TempDir())
	silent, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	defer silent.Close()
	if _, err := hold.Write(make([]byte, 32<<10)); err != nil { // and then it is silent
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  string
		begun func() bool
		after time.Duration
		want  string
	}{
		{"image create silent --file -", shown(t, g, "silent", "queued", "saving"), 50 * time.Millisecond, ""},
		{"image create up --file " + big, shown(t, g, "up", "saving"), 100 * time.Millisecond, "nothing was created"},
		{"image save big down.raw", partly, 50 * time.Millisecond, ""},
		{"convert --to qcow2 -c " + big + " out.qcow2", partly, 50 * time.Millisecond, ""},
		{"capture --overlay vm --name captured", shown(t, g, "captured", "queued", "saving"), 200 * time.Millisecond, "the capture goes on"},
	} {
		// What is done before the key is pressed proves nothing: press earlier.
		interrupted := false
		for after := c.after; !interrupted && after > time.Millisecond; after /= 2 {
			interrupted = pressCtrlC(t, g, c.args, silent, c.begun, after, c.want)
		}
		if !interrupted {
			t.Errorf("platter %s is always done before Ctrl-C", c.args)
		}
	}
	if left, _ := os.ReadDir("."); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, name := range []string{"silent", "up"} {
		if s := typed(t, g, "image", "list", "--name", name); s.out != "" {
			t.Errorf("left behind: %s", s.out)
		}
	}
	for deadline := time.Now().Add(2 * time.Minute); must(t, g, "image", "list", "--name", "captured", "-f", "value", "-c", "status") != "active"; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the capture did not go on")
		}
	}
}

// TestGatewayGoesAway kills the gateway under a download, which goes on when
// it is back, and under an upload, which says what is left.
func TestGatewayGoesAway(t *testing.T) {
	g := gateway.Start(t, "--mount", "off")
	big, _ := randomFile(t, 300<<20)
	must(t, g, "image", "create", "big", "--file", big)
	t.Chdir(t.TempDir())
	cmd := cli(t, g, "image", "save", "big", "out.raw")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Bytes have come, or all of them.
	for there := false; !there; time.Sleep(time.Millisecond) {
		files, _ := filepath.Glob(".platter-*.part")
		for _, name := range append(files, "out.raw") {
			st, err := os.Stat(name)
			there = there || err == nil && st.Sys().(*syscall.Stat_t).Blocks > 0
		}
	}
	g.Kill(t)
	time.Sleep(time.Second)
	g.Run(t)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the download: %v\n%s", err, errs.String())
	}
	sameFile(t, "out.raw", readAll(t, big))

	for try := 0; ; try++ {
		cmd = cli(t, g, "image", "create", "up", "--file", big)
		errs.Reset()
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for saving := shown(t, g, "up", "saving"); len(ended) == 0 && !saving(); {
			time.Sleep(time.Millisecond)
		}
		g.Kill(t)
		err := <-ended
		if err == nil && try < 10 { // it was done before
			g.Run(t)
			must(t, g, "image", "delete", "up")
			continue
		}
		if cmd.ProcessState.ExitCode() != 6 || !strings.Contains(errs.String(), "platter image delete ") {
			t.Errorf("the upload: %v\n%s", err, errs.String())
		}
		break
	}
	g.Run(t)
	if status := must(t, g, "image", "list", "--name", "up", "-f", "value", "-c", "status"); status != "queued" {
		t.Errorf("the image of the upload is %q, want queued", status)
	}
}

// TestAttachPrints gives each of the things that attach prints to the program
// that it is for.
func TestAttachPrints(t *testing.T) {
	gateway.Need(t, "qemu-system-x86_64", "qemu-img", "nbdinfo")
	g := gateway.Start(t, "--mount", "off")
	must(t, g, "image", "create", "debian", "--file", newDisk(t, "8M"))
	must(t, g, "overlay", "create", "debian", "--name", "vm")
	for _, c := range [][2]string{{"debian", "ro"}, {"debian", "ephemeral"}, {"overlay/vm", "rw"}} {
		for _, transport := range []string{"unix", "tcp"} {
			print := func(what string) string {
				for id := range strings.FieldsSeq(typed(t, g, "attachment", "list", "-f", "value", "-c", "id").out) {
					must(t, g, "detach", id)
				}
				return strings.TrimSpace(typed(t, g, "attach", c[0], "--mode", c[1], "--transport", transport, "--print", what).out)
			}
			qemu := exec.CommandContext(t.Context(), "qemu-system-x86_64", append([]string{"-S", "-display", "none", "-nodefaults",
				"-qmp", "stdio"}, strings.Fields(print("qemu"))...)...)
			qemu.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"query-block"}{"execute":"quit"}`)
			if out, err := qemu.CombinedOutput(); err != nil || !strings.Contains(string(out), `"virtual-size": 8388608`) {
				t.Errorf("qemu with %s %s %s: %v\n%s", c[0], c[1], transport, err, out)
			}
			uri := print("uri")
			if out := tool(t, "nbdinfo", uri); !strings.Contains(out, "export-size: 8388608") ||
				strings.Contains(out, "is_read_only: true") != (c[1] == "ro") {
				t.Errorf("nbdinfo %s:\n%s", uri, out)
			}
			var disk struct {
				Source struct {
					Name string `xml:"name,attr"`
				} `xml:"source"`
			}
			text := print("libvirt")
			if err := xml.Unmarshal([]byte(text), &disk); err != nil || !strings.HasPrefix(disk.Source.Name, "attach/") {
				t.Errorf("libvirt: %v\n%s", err, text)
			}
			if text := print("nbd-client"); !strings.HasPrefix(text, "nbd-client -name attach/") {
				t.Errorf("nbd-client: %s", text)
			}
		}
	}
}

// TestAtATerminal looks at what platter does on one, with script(1).
func TestAtATerminal(t *testing.T) {
	gateway.Need(t, "script", "bash")
	g := gateway.Start(t, "--mount", "off")
	big, _ := randomFile(t, 200<<20)
	tty := func(line string) string {
		cmd := exec.CommandContext(t.Context(), "script", "-qec", line, "/dev/null")
		cmd.Env = append(os.Environ(), "PLATTER_URL="+g.URL, "PATH="+filepath.Dir(gateway.Binary(t, "platter"))+":"+os.Getenv("PATH"))
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	if out := tty("platter image create debian --file " + big); !strings.Contains(out, "uploading [==") || !strings.Contains(out, "active") {
		t.Errorf("no bar:\n%q", out)
	}
	if out := tty("platter image save debian -"); !strings.Contains(out, "not for a terminal") {
		t.Errorf("an image on a terminal: %q", out[:min(200, len(out))])
	}
	if out := tty("platter attach debian --print uri"); !strings.Contains(out, "platter detach ") {
		t.Errorf("how to detach: %q", out)
	}
	must(t, g, "image", "create", "$(touch hacked)", "--disk-format", "raw")
	for line, want := range map[string]string{
		"image s": "show set save stage", "image show de": "debian", "attach x --mode e": "ephemeral", "attach --mo": "--mode",
		"convert --to q": "qcow2", "image list -f j": "json", "image show $": "",
	} {
		words := strings.Fields(line)
		quoted := "platter"
		for _, w := range words {
			quoted += " '" + w + "'"
		}
		got := strings.TrimSpace(tty(`bash -c 'source <(platter completion bash); COMP_WORDS=(` + strings.ReplaceAll(quoted, "'", `"`) +
			fmt.Sprintf(`); COMP_CWORD=%d; _platter; echo ${COMPREPLY[*]}'`, len(words))))
		if got != want {
			t.Errorf("platter %s<TAB> gives %q, want %q", line, got, want)
		}
	}
	if _, err := os.Stat("hacked"); err == nil {
		os.Remove("hacked")
		t.Error("a name was run as a command")
	}
}

// TestDoctor asks a gateway in health and one whose disk is full.
func TestDoctor(t *testing.T) {
	g := gateway.Start(t)
	s := typed(t, g, "doctor", "-f", "value", "-c", "check", "-c", "result")
	for _, line := range []string{"gateway ok", "readiness ok", "image_api ok", "store ok", "nbd unix ok", "nbd tcp ok", "fuse ok"} {
		if !strings.Contains(s.out, strings.ReplaceAll(line, "_", " ")+"\n") {
			t.Errorf("doctor lacks %q:\n%s", line, s.out)
		}
	}
	if s.code != 0 {
		t.Errorf("exit code %d\n%s", s.code, s.out)
	}
	for _, list := range [][]string{{"image", "list", "--hidden"}, {"attachment", "list"}} {
		if s := typed(t, g, list...); s.out != "" {
			t.Errorf("the doctor left behind: %s", s.out)
		}
	}
	full := gateway.Start(t, "--mount", "off", "PLATTER_LIMITS_RESERVE=1000TiB")
	if s := typed(t, full, "doctor"); s.code != 1 || !strings.Contains(s.out, "its disk may be full") || !strings.Contains(s.out, "(req-") {
		t.Errorf("a full disk: exit code %d\n%s", s.code, s.out)
	}
}

// TestReadmeNames holds every command and flag that the README names against
// the programs.
func TestReadmeNames(t *testing.T) {
	text := string(readAll(t, filepath.Join(gateway.Root(), "README.md")))
	for _, config := range strings.Split(text, "```toml\n")[1:] {
		config, _, _ = strings.Cut(config, "```")
		if strings.Contains(config, "_file =") { // that secret is nowhere here
			continue
		}
		file := filepath.Join(t.TempDir(), "readme.toml")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		tool(t, gateway.Binary(t, "platterd"), "check-config", file)
	}
	daemon := tool(t, gateway.Binary(t, "platterd"), "--help")
	known := 0
	for _, line := range commandsOf(text) {
		words := strings.Fields(line)
		if words[0] == "platterd" {
			for _, w := range words[1:] {
				if w = strings.Trim(w, "[],."); w != strings.ToUpper(w) && !strings.Contains(daemon, w) {
					t.Errorf("README: %s: platterd has no %s", line, w)
				}
			}
			known++
			continue
		}
		var path []string
		for _, w := range words[1:] {
			offered := strings.Fields(tool(t, gateway.Binary(t, "platter"), append(append([]string{"__complete"}, path...), strings.TrimLeft(w, "[")[:1])...))
			flag, _, _ := strings.Cut(strings.Trim(w, "[],.)"), "=")
			switch {
			case strings.HasPrefix(flag, "--"):
				if !slices.Contains(offered, flag) {
					t.Errorf("README: %s: there is no %s", line, flag)
				}
			case slices.Contains(offered, flag):
				path = append(path, flag)
			case len(path) == 0 && w != strings.ToUpper(w): // VERB
				t.Errorf("README: %s: there is no command %s", line, flag)
			}
		}
		known++
	}
	if known < 8 {
		t.Errorf("the README names %d commands only; is it still read right?", known)
	}
}

// commandsOf finds what begins with platter or platterd in code.
func commandsOf(text string) []string {
	var found []string
	add := func(code string) {
		code = strings.ReplaceAll(code, "\\\n", " ")
		for line := range strings.Lines(code) {
			if _, inner, ok := strings.Cut(line, "$(platter "); ok {
				inner, _, _ = strings.Cut(inner, ")")
				line = "platter " + inner
			}
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			if strings.HasPrefix(line, "platter ") || strings.HasPrefix(line, "platterd ") {
				found = append(found, line)
			}
		}
	}
	for i, part := range strings.Split(text, "```") {
		if i%2 == 1 {
			add(part)
			continue
		}
		for j, code := range strings.Split(part, "`") {
			if j%2 == 1 {
				add(code)
			}
		}
	}
	return found
}
