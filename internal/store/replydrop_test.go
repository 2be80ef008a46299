package store_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
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

// TestI6_LeaveMayRunFourTimes: what a worker still owns goes to the front once.
func TestI6_LeaveMayRunFourTimes(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		g := newGrave(t, b, b.Client())
		_, err := g.Enqueue(t.Context(), "lane", 1, false, []store.NewJob{{ID: "a", Envelope: []byte("x")}, {ID: "b", Envelope: []byte("x")}, {ID: "c", Envelope: []byte("x")}})
		require.NoError(t, err)
		_, err = g.Beat(t.Context(), "w", time.Minute)
		require.NoError(t, err)
		c, err := g.Claim(t.Context(), store.ClaimCall{Worker: "w", Call: 1, N: 2})
		require.NoError(t, err)
		require.Len(t, c.Jobs, 2)
		released := 0
		for range 4 {
			n, err := g.Leave(t.Context(), "w")
			require.NoError(t, err)
			released += n
		}
		require.Equal(t, 2, released)
		ready := g.rdb.LRange(t.Context(), g.key("ready"), 0, -1).Val()
		require.ElementsMatch(t, []string{"a", "b"}, ready[:2])
		require.Equal(t, []string{"c"}, ready[2:])
		stats, err := g.Stats(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2, stats.Counters[store.Released])
		require.Zero(t, stats.Workers)
	})
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
