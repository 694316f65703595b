package house

import (
	"go/ast"
	"slices"
	"testing"
)

// shapes are the interfaces that a layer wraps and never embeds: embedding
// forwards what was forgotten.
var shapes = []string{"Reader", "ReadCloser", "Device", "Store", "Delta", "Image"}

// TestNoEmbedding checks that a layer keeps what it wraps in a field with a
// name and writes its methods out.
func TestNoEmbedding(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !within(s.pkg.rel(), "backends/...") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			st, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range st.Fields.List {
				if sel, ok := f.Type.(*ast.SelectorExpr); ok && len(f.Names) == 0 && slices.Contains(shapes, sel.Sel.Name) {
					t.Errorf("%s: embeds %s", s.at(f), sel.Sel.Name)
				}
			}
			return true
		})
	}
}

// abilities are the optional interfaces, with the package that may ask for
// them. Everybody else calls that package's function.
var abilities = map[string]string{
	"Mapper": "backends/block", "Zeroer": "backends/block", "Discarder": "backends/block", "Prefetcher": "backends/block",
	"Lister": "backends", "Meter": "backends", "Prober": "backends", "Locator": "backends", "Copier": "backends", "Leaser": "catalog", "Puncher": "backends/localfs", "Sizer": "backends/localfs",
}

// TestNobodyAsserts checks that optional abilities are asked for only where
// they are declared.
func TestNobodyAsserts(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeAssertExpr:
				checkAssert(t, s, n.Type)
			case *ast.TypeSwitchStmt:
				for _, c := range n.Body.List {
					for _, typ := range c.(*ast.CaseClause).List {
						checkAssert(t, s, typ)
					}
				}
			}
			return true
		})
	}
}

func checkAssert(t *testing.T, s source, typ ast.Expr) {
	sel, ok := typ.(*ast.SelectorExpr)
	if !ok {
		return
	}
	if home := abilities[sel.Sel.Name]; home != "" && home != s.pkg.rel() {
		t.Errorf("%s: asserts %s: call the function of %s instead", s.at(typ), sel.Sel.Name, home)
	}
}

// TestBuildTags checks that a build tag stands only for cgo libraries, for an
// operating system, or before a test that needs real programs.
func TestBuildTags(t *testing.T) {
	known := []string{"//go:build rbd", "//go:build !rbd", "//go:build libnbd", "//go:build !libnbd",
		"//go:build linux", "//go:build !linux", "//go:build integration", "//go:build soak"}
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if len(c.Text) > 10 && c.Text[:10] == "//go:build" && !slices.Contains(known, c.Text) {
					t.Errorf("%s: build tag %q", s.at(c), c.Text)
				}
			}
		}
	}
}

// TestNothingIsSkipped checks that no test steps aside: what cannot be tested
// on a machine is a failure there. A step of a state machine may be passed
// over; its t is not testing's.
func TestNothingIsSkipped(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Body == nil || takes(f, "rapid") {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
					if x, ok := sel.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "tb", "f"}, x.Name) {
						t.Errorf("%s: %s.%s", s.at(sel), x.Name, sel.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// takes tells whether a parameter of f is of a type of package pkg.
func takes(f *ast.FuncDecl, pkg string) bool {
	for _, p := range f.Type.Params.List {
		if star, ok := p.Type.(*ast.StarExpr); ok {
			if sel, ok := star.X.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
					return true
				}
			}
		}
	}
	return false
}
