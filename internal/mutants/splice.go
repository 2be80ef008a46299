package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// To compile a package once for each of its mutants would take most of the time. So
// all of them go into one build: each function that one changes begins by passing the
// call on to a copy with the defect, if that is the one that is asked for.

const (
	// mutantEnv names the mutant that the tests run with; none if it is empty.
	mutantEnv  = "REDRIVE_MUTANT"
	switchFile = "mutant_switch.go" // exists in the overlay only, once per package
)

// library returns the files, by name from the root, that the library with all the
// mutants has in place of its own.
func library(root string, ms []mutant) (map[string][]byte, error) {
	files, err := scriptLoader(root)
	if err != nil {
		return nil, err
	}
	defects := make(map[string][]defect)
	for _, m := range ms {
		for _, e := range m.edits {
			if !isScript(e.file) {
				defects[e.file] = append(defects[e.file], defect{m.name, e})
			}
		}
	}
	for name, list := range defects {
		src, ok := files[name]
		if !ok {
			if src, err = os.ReadFile(filepath.Join(root, name)); err != nil {
				return nil, err
			}
		}
		out, pkg, err := splice(src, list)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = out
		files[path.Join(path.Dir(name), switchFile)] = fmt.Appendf(nil,
			"package %s\n\nimport \"os\"\n\nvar mutant = os.Getenv(%q)\n", pkg, mutantEnv)
	}
	return files, nil
}

// A defect is an edit of a Go file, with the name of its mutant.
type defect struct {
	name string
	edit
}

// splice adds to a file a copy of each function for each of the mutants that change it.
func splice(src []byte, defects []defect) (out []byte, pkg string, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, "", err
	}
	at := func(p token.Pos) int { return fset.Position(p).Offset }
	// The copies of each function, by mutant.
	copies := make(map[*ast.FuncDecl]map[string]string)
	for _, d := range defects {
		place := bytes.Index(src, []byte(d.old))
		i := slices.IndexFunc(file.Decls, func(decl ast.Decl) bool {
			f, ok := decl.(*ast.FuncDecl)
			return ok && f.Body != nil && at(f.Body.Lbrace) < place && place+len(d.old) <= at(f.Body.Rbrace)
		})
		if place < 0 || i < 0 {
			return nil, "", fmt.Errorf("%s: not within the body of a function: %q", d.name, d.old)
		}
		f := file.Decls[i].(*ast.FuncDecl)
		if copies[f] == nil {
			copies[f] = make(map[string]string)
		}
		text, ok := copies[f][d.name]
		if !ok {
			text = string(src[at(f.Pos()):at(f.Name.Pos())]) + copyName(f, d.name) + string(src[at(f.Name.End()):at(f.End())])
		}
		copies[f][d.name] = strings.Replace(text, d.old, d.new, 1)
	}
	done := 0
	var added strings.Builder
	for _, decl := range file.Decls { // in their order
		f, ok := decl.(*ast.FuncDecl)
		if !ok || copies[f] == nil {
			continue
		}
		names := make([]string, 0, len(copies[f]))
		for name, text := range copies[f] {
			names = append(names, name)
			added.WriteString("\n" + text + "\n")
		}
		slices.Sort(names)
		jump, err := dispatch(f, names)
		if err != nil {
			return nil, "", err
		}
		body := at(f.Body.Lbrace) + 1
		out = append(append(out, src[done:body]...), jump...)
		done = body
	}
	return append(append(out, src[done:]...), added.String()...), file.Name.Name, nil
}

func copyName(f *ast.FuncDecl, mutant string) string {
	return f.Name.Name + "_" + strings.ReplaceAll(mutant, "-", "_")
}

// dispatch is what a function begins with: a jump to the copy of the mutant.
func dispatch(f *ast.FuncDecl, names []string) (string, error) {
	fail := func(why string) (string, error) { return "", fmt.Errorf("function %s %s", f.Name.Name, why) }
	callee := ""
	if f.Recv != nil {
		if len(f.Recv.List[0].Names) != 1 || f.Recv.List[0].Names[0].Name == "_" {
			return fail("has a receiver without a name")
		}
		callee = f.Recv.List[0].Names[0].Name + "."
	}
	if f.Type.TypeParams != nil {
		return fail("has type parameters")
	}
	var args []string
	for _, p := range f.Type.Params.List {
		dots := ""
		if _, ok := p.Type.(*ast.Ellipsis); ok {
			dots = "..."
		}
		if len(p.Names) == 0 {
			return fail("has a parameter without a name")
		}
		for _, name := range p.Names {
			if name.Name == "_" {
				return fail("has a parameter without a name")
			}
			args = append(args, name.Name+dots)
		}
	}
	var b strings.Builder
	b.WriteString("\nswitch mutant {\n")
	for _, name := range names {
		call := callee + copyName(f, name) + "(" + strings.Join(args, ", ") + ")"
		if f.Type.Results == nil {
			call += "; return"
		} else {
			call = "return " + call
		}
		fmt.Fprintf(&b, "case %q:\n%s\n", name, call)
	}
	b.WriteString("}\n")
	return b.String(), nil
}
