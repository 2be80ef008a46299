package store_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryScriptIsListed: Scripts names every script that the package makes, so
// that no test of lost replies can miss one.
func TestEveryScriptIsListed(t *testing.T) {
	t.Parallel()
	made, listed := make(map[string]bool), make(map[string]bool)
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		if !goSource(e) {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			ast.Inspect(decl, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.ValueSpec:
					for i, v := range n.Values {
						if call, ok := v.(*ast.CallExpr); ok && makesScripts(call) {
							made[n.Names[i].Name] = true
						}
					}
				case *ast.FuncDecl:
					if n.Name.Name != "Scripts" {
						return true
					}
					ast.Inspect(n.Body, func(n ast.Node) bool {
						if id, ok := n.(*ast.Ident); ok {
							listed[id.Name] = true
						}
						return true
					})
				}
				return true
			})
		}
	}
	require.Greater(t, len(made), 20, "the scripts were not found")
	for name := range made {
		require.True(t, listed[name], "Scripts lacks %s", name)
	}
}

func goSource(e fs.DirEntry) bool {
	return strings.HasSuffix(e.Name(), ".go") && !strings.HasSuffix(e.Name(), "_test.go")
}

func makesScripts(call *ast.CallExpr) bool {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name == "newSettleScript"
	case *ast.SelectorExpr:
		return f.Sel.Name == "NewScript"
	}
	return false
}
