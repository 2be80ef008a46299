package redrive_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDocsNameTestsThatExist: a promise in the docs names the test that shows it.
func TestDocsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	declared := make(map[string]bool)
	decl := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)\w*)\(`)
	require.NoError(t, filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range decl.FindAllSubmatch(src, -1) {
			declared[string(m[1])] = true
		}
		return err
	}))
	docs, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	named := regexp.MustCompile("`((?:Test|Fuzz|Example)[A-Z_]\\w*)`")
	found := 0
	for _, path := range append(docs, "README.md", "SECURITY.md") {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range named.FindAllSubmatch(text, -1) {
			found++
			if !declared[string(m[1])] {
				t.Errorf("%s names %s, which is not there", path, m[1])
			}
		}
	}
	require.Greater(t, found, 40)
}
