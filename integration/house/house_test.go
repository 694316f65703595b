package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pkg is what "go list -json" says of one package.
type pkg struct {
	Dir, ImportPath, Name                string
	GoFiles, TestGoFiles, IgnoredGoFiles []string
	XTestGoFiles                         []string
	Imports                              []string
}

// rel returns the package's folder below the module.
func (p pkg) rel() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

const module = "github.com/seed-478a8fee/platter"

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=Dir,ImportPath,Name,GoFiles,TestGoFiles,XTestGoFiles,IgnoredGoFiles,Imports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

// root returns the folder of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// floors says what each room may import of the module, the longest match
// first. A rule ending in "/..." covers the folder and all below it.
var floors = []struct {
	room string
	may  []string
}{
	{"backends/block/blocktest", []string{"backends/..."}},
	{"backends/block", nil},
	{"backends", []string{"backends/..."}},
	{"catalog", []string{"catalog/..."}},
	{"nbd", []string{"nbd/...", "backends/block"}},
	{"fusefs", []string{"fusefs/...", "backends/block"}},
	{"api", []string{"api/...", "catalog/...", "backends", "backends/block", "backends/format/..."}},
	{"cmd", []string{"..."}},
	{"integration", []string{"..."}},
}

func within(rel, rule string) bool {
	if rule == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(rule, "/..."); ok {
		return rel == base || strings.HasPrefix(rel, base+"/")
	}
	return rel == rule
}

// TestFloors checks that imports inside the module go down only.
func TestFloors(t *testing.T) {
	for _, p := range packages(t) {
		for _, f := range floors {
			if !within(p.rel(), f.room+"/...") {
				continue
			}
			for _, imp := range p.Imports {
				rel, ours := strings.CutPrefix(imp, module+"/")
				if !ours {
					continue
				}
				if !slices.ContainsFunc(f.may, func(rule string) bool { return within(rel, rule) }) {
					t.Errorf("%s imports %s: %s may import only %v", p.rel(), rel, f.room, f.may)
				}
			}
			break
		}
	}
}

// TestRooms checks that stores, layers and formats stand beside each other,
// and that a format has no road to the outside.
func TestRooms(t *testing.T) {
	stores := []string{"backends/mem", "backends/file", "backends/rbd", "backends/s3", "backends/swift", "backends/http"}
	for _, p := range packages(t) {
		if slices.Contains(stores, p.rel()) {
			for _, imp := range p.Imports {
				rel, ours := strings.CutPrefix(imp, module+"/")
				if ours && !slices.Contains([]string{"backends", "backends/block", "backends/localfs"}, rel) {
					t.Errorf("the store %s imports %s: stores know only the words of backends", p.rel(), rel)
				}
			}
		}
		if within(p.rel(), "backends/format/...") {
			for _, imp := range p.Imports {
				if slices.Contains([]string{"os", "net", "os/exec", "syscall", "net/http"}, imp) {
					t.Errorf("%s imports %s: a format is given bytes and opens nothing", p.rel(), imp)
				}
			}
		}
	}
}

// TestTopLevel checks that nothing is added at the top.
func TestTopLevel(t *testing.T) {
	want := []string{"cmd", "fusefs", "nbd", "backends", "catalog", "api", "integration", "go.mod", "go.sum",
		"Makefile", "README.md", "LICENSE", ".gitignore", ".ci"}
	out, err := exec.Command("git", "-C", root(t), "ls-files").Output()
	if err != nil {
		return // a source archive has nothing to compare with
	}
	for _, name := range strings.Fields(string(out)) {
		if top, _, _ := strings.Cut(name, "/"); !slices.Contains(want, top) {
			t.Errorf("%s: %s does not belong at the top level", name, top)
		}
	}
}

// source is one parsed file of the module.
type source struct {
	pkg  pkg
	name string
	test bool
	fset *token.FileSet
	file *ast.File
	data []byte
}

func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s/%s:%d", s.pkg.rel(), filepath.Base(s.name), s.fset.Position(n.Pos()).Line)
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles, p.IgnoredGoFiles) {
			path := filepath.Join(p.Dir, name)
			data, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, path, data, parser.ParseComments)
			if err != nil {
				t.Errorf("%v", err)
				continue
			}
			all = append(all, source{p, path, strings.HasSuffix(name, "_test.go"), fset, f, data})
		}
	}
	return all
}
