package house

import (
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPackageComments checks that every package says what it is.
func TestPackageComments(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		said[s.pkg.rel()] = said[s.pkg.rel()] || s.file.Doc != nil || s.pkg.Name == ""
	}
	for rel, ok := range said {
		if !ok {
			t.Errorf("%s has no package comment", rel)
		}
	}
}

// TestDocComments checks that every exported name is explained. A method that
// is named in an interface of the standard library may speak for itself.
func TestDocComments(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.pkg.Name == "main" {
			continue
		}
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !wellKnown(d) {
					t.Errorf("%s: %s has no doc comment", s.at(d), d.Name.Name)
				}
			case *ast.GenDecl:
				checkGenDecl(t, s, d)
			}
		}
	}
}

func checkGenDecl(t *testing.T, s source, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch sp := spec.(type) {
		case *ast.TypeSpec:
			if sp.Name.IsExported() && d.Doc == nil && sp.Doc == nil {
				t.Errorf("%s: type %s has no doc comment", s.at(sp), sp.Name.Name)
			}
		case *ast.ValueSpec:
			if sp.Names[0].IsExported() && d.Doc == nil && sp.Doc == nil && sp.Comment == nil {
				t.Errorf("%s: %s has no doc comment", s.at(sp), sp.Names[0].Name)
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

// wellKnown says whether a method is one of the shapes that every reader of
// Go or of package block knows.
func wellKnown(d *ast.FuncDecl) bool {
	return d.Recv != nil && slices.Contains([]string{"Error", "Unwrap", "Is", "String", "Read", "Write", "Close",
		"ReadAt", "WriteAt", "Size", "Flush", "Extent", "Zero", "Discard", "Prefetch", "ServeHTTP", "Len", "Less", "Swap",
		"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText"}, d.Name.Name)
}

// TestNames checks that no package is called after nothing.
func TestNames(t *testing.T) {
	empty := []string{"util", "utils", "common", "helpers", "helper", "misc", "base", "types", "models"}
	for _, p := range packages(t) {
		if slices.Contains(empty, p.Name) {
			t.Errorf("%s: %q says nothing about what is inside", p.rel(), p.Name)
		}
	}
}

// TestSizes checks lengths: files, functions, interfaces. Tests may be longer.
func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		if n := strings.Count(string(s.data), "\n"); n > 500 {
			t.Errorf("%s/%s has %d lines, more than 500", s.pkg.rel(), filepath.Base(s.name), n)
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if lines := s.lines(n); lines > 80 {
					t.Errorf("%s: %s has %d lines, more than 80", s.at(n), n.Name.Name, lines)
				}
			case *ast.InterfaceType:
				if n.Methods.NumFields() > 5 {
					t.Errorf("%s: an interface of %d methods, more than 5", s.at(n), n.Methods.NumFields())
				}
			}
			return true
		})
	}
}

func (s source) lines(n ast.Node) int {
	return s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
}

// TestState checks that packages keep no state of their own: no init, no
// variable that is not an error, a table or a compiled expression.
func TestState(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init", s.at(f))
			}
			if g, ok := decl.(*ast.GenDecl); ok && g.Tok == token.VAR {
				checkState(t, s, g)
			}
		}
	}
}

// checkState refuses the variables that can only be there to change: those of
// package sync, maps made empty, and those without a value.
func checkState(t *testing.T, s source, g *ast.GenDecl) {
	for _, spec := range g.Specs {
		v := spec.(*ast.ValueSpec)
		if sel, ok := v.Type.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && (x.Name == "sync" || x.Name == "atomic") && sel.Sel.Name != "Pool" {
				t.Errorf("%s: %s is state of the package", s.at(v), v.Names[0].Name)
			}
		}
		if len(v.Values) == 0 && v.Names[0].Name != "_" {
			if _, array := v.Type.(*ast.ArrayType); !array && !isPool(v.Type) {
				t.Errorf("%s: %s is a variable that waits to be set", s.at(v), v.Names[0].Name)
			}
		}
	}
}

func isPool(typ ast.Expr) bool {
	sel, ok := typ.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Pool"
}
