package redrive_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program that imports the root package links go-redis, uuid and backoff, what
// go-redis itself needs, and nothing else. The packages of the standard library
// that are refused by name make a binary 8 MB larger: templates call methods by
// name, which stops the linker from dropping unused ones.
func TestRootLinksOnlyItsThreeDependencies(t *testing.T) {
	t.Parallel()
	const format = `{{if .Standard}}std{{else}}{{.Module.Path}}{{end}} {{.ImportPath}}`
	deps := func(pkg string) (modules, packages []string) {
		out, err := exec.Command("go", "list", "-deps", "-f", format, pkg).CombinedOutput()
		require.NoError(t, err, "%s", out)
		for line := range strings.Lines(string(out)) {
			module, path, _ := strings.Cut(strings.TrimSpace(line), " ")
			if module != "std" && !slices.Contains(modules, module) {
				modules = append(modules, module)
			}
			packages = append(packages, path)
		}
		slices.Sort(modules)
		return modules, packages
	}

	allowed, _ := deps("github.com/redis/go-redis/v9")
	allowed = append(allowed, "github.com/redrive-go/redrive", "github.com/google/uuid", "github.com/cenkalti/backoff/v4")
	modules, packages := deps("github.com/redrive-go/redrive")
	for _, m := range modules {
		require.Contains(t, allowed, m)
	}
	require.Greater(t, len(packages), 100, "go list saw the packages")
	for _, p := range []string{
		"text/template", "html/template", "testing", "net/http/httptest",
		"github.com/alicebob/miniredis/v2", "github.com/stretchr/testify/require",
		"github.com/redrive-go/redrive/embedded", "github.com/redrive-go/redrive/internal/memredis",
	} {
		require.NotContains(t, packages, p)
	}
}
