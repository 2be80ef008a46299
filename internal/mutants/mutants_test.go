package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

func root(t *testing.T) string {
	t.Helper()
	dir, err := moduleRoot()
	require.NoError(t, err)
	return dir
}

// testsIn returns the names of the tests in a directory of the module, and below it if
// deep.
func testsIn(t *testing.T, dir string, deep bool) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	decl := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	require.NoError(t, filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != dir && !deep:
			return filepath.SkipDir
		case !strings.HasSuffix(file, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(file)
		for _, m := range decl.FindAllSubmatch(src, -1) {
			names[string(m[1])] = true
		}
		return err
	}))
	return names
}

func TestEveryMutantAppliesAndNamesTestsThatExist(t *testing.T) {
	dir := root(t)
	tests := make(map[string]map[string]bool)
	seen := make(map[string]bool)
	for _, m := range mutants() {
		require.Regexp(t, `^[a-z]+(-[a-z]+)*$`, m.name)
		require.False(t, seen[m.name], "two mutants are named %s", m.name)
		seen[m.name] = true
		require.NotEmpty(t, m.story, m.name)
		require.NotEmpty(t, m.killers, m.name)
		_, err := m.mutated(dir)
		require.NoError(t, err, m.name)
		if tests[m.pkg] == nil {
			tests[m.pkg] = testsIn(t, filepath.Join(dir, m.pkg), false)
		}
		for _, name := range m.killers {
			require.True(t, tests[m.pkg][name], "%s: %s has no test %s", m.name, m.pkg, name)
		}
	}
	require.GreaterOrEqual(t, len(seen), 20)
}

// TestEveryInvariantHasAMutantAndATest: I1 to I16 are what the library promises.
func TestEveryInvariantHasAMutantAndATest(t *testing.T) {
	named, broken := make(map[string]bool), make(map[string]bool)
	prefix := regexp.MustCompile(`^Test((?:I\d+_)+)`)
	for name := range testsIn(t, root(t), true) {
		if m := prefix.FindStringSubmatch(name); m != nil {
			for one := range strings.SplitSeq(m[1], "_") {
				named[one] = true
			}
		}
	}
	for _, m := range mutants() {
		broken[m.breaks] = true
	}
	for n := 1; n <= 16; n++ {
		i := fmt.Sprintf("I%d", n)
		require.True(t, named[i], "no test is named for %s", i)
		require.True(t, broken[i], "no mutant breaks %s", i)
	}
}

// TestEveryMutantIsGoThatCompiles type-checks the library with all the mutants in it.
func TestEveryMutantIsGoThatCompiles(t *testing.T) {
	dir := root(t)
	pkgs, exports := listed(t, dir)
	mutated, err := library(dir, mutants())
	require.NoError(t, err)
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("%s is not listed", path)
		}
		return os.Open(exports[path])
	})
	for _, pkg := range packages {
		rel := path.Clean(pkg)
		var files []*ast.File
		for _, name := range append(pkgs[rel], path.Join(rel, switchFile), path.Join(rel, path.Base(loader))) {
			var src any // nil: as it is on the disk
			if text, ok := mutated[name]; ok {
				src = text
			} else if !slices.Contains(pkgs[rel], name) {
				continue
			}
			file, err := parser.ParseFile(fset, filepath.Join(dir, name), src, parser.SkipObjectResolution)
			require.NoError(t, err)
			files = append(files, file)
		}
		_, err := (&types.Config{Importer: imports}).Check(pkg, fset, files, nil)
		require.NoError(t, err)
	}
	all := string(bytes.Join(slices.Collect(maps.Values(mutated)), nil))
	for _, m := range mutants() {
		if slices.ContainsFunc(m.edits, func(e edit) bool { return !isScript(e.file) }) {
			require.Contains(t, all, fmt.Sprintf("case %q:", m.name))
		}
	}
}

// TestASplicedFunctionIsTheMutantsOrItsOwn looks at what splice writes.
func TestASplicedFunctionIsTheMutantsOrItsOwn(t *testing.T) {
	const src = `package p

func f(a int, b ...string) (n int) { return a + 1 }

func (r *T) g() { r.x = 1 }

func (*T) h(int) { print("h") }

func generic[V any](v V) { print(v) }

var outside = 1
`
	out, pkg, err := splice([]byte(src), []defect{
		{"more", edit{old: "a + 1", new: "a + 2"}}, {"less", edit{old: "a + 1", new: "a - 1"}}, {"more", edit{old: "r.x = 1", new: ""}},
	})
	require.NoError(t, err)
	require.Equal(t, "p", pkg)
	text := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{
		`func f(a int, b ...string) (n int) { switch mutant { case "less": return f_less(a, b...) case "more": return f_more(a, b...) } return a + 1 }`,
		`func f_more(a int, b ...string) (n int) { return a + 2 }`,
		`func f_less(a int, b ...string) (n int) { return a - 1 }`,
		`func (r *T) g() { switch mutant { case "more": r.g_more(); return } r.x = 1 }`,
		`func (r *T) g_more() { }`,
	} {
		require.Contains(t, text, want)
	}
	for old, want := range map[string]string{
		`print("h")`: "receiver without a name", "print(v)": "type parameters", "outside = 1": "not within", "nowhere": "not within",
	} {
		_, _, err := splice([]byte(src), []defect{{"m", edit{old: old}}})
		require.ErrorContains(t, err, want)
	}
}

// listed returns the files of the packages that mutate, by directory, and where the
// compiler has put what their imports export.
func listed(t *testing.T, dir string) (pkgs map[string][]string, exports map[string]string) {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,Dir,GoFiles,Module", rootPkg, storePkg, wirePkg)
	cmd.Dir = dir
	out, err := cmd.Output()
	require.NoError(t, err)
	pkgs, exports = make(map[string][]string), make(map[string]string)
	for list := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Export, Dir string
			GoFiles                 []string
			Module                  *struct{ Main bool }
		}
		if err := list.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, exports
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if p.Module == nil || !p.Module.Main {
			continue
		}
		rel, err := filepath.Rel(dir, p.Dir)
		require.NoError(t, err)
		for _, name := range p.GoFiles {
			pkgs[filepath.ToSlash(rel)] = append(pkgs[filepath.ToSlash(rel)], path.Join(filepath.ToSlash(rel), name))
		}
	}
}

// TestEveryMutantIsLuaThatCompiles loads what the mutants make of scripts.
func TestEveryMutantIsLuaThatCompiles(t *testing.T) {
	dir, rdb := root(t), redistest.Embedded(t).Client()
	loaded := 0
	for _, m := range mutants() {
		files, err := m.mutated(dir)
		require.NoError(t, err)
		for name, text := range files {
			if strings.HasSuffix(name, ".lua") {
				require.NoError(t, rdb.ScriptLoad(t.Context(), string(text)).Err(), m.name)
				loaded++
			}
		}
	}
	require.Greater(t, loaded, 20)
	require.Error(t, rdb.ScriptLoad(t.Context(), "if then").Err())
}

func TestTheScriptLoaderReplacesEveryEmbeddedScript(t *testing.T) {
	dir := root(t)
	files, err := scriptLoader(dir)
	require.NoError(t, err)
	scripts, err := filepath.Glob(filepath.Join(dir, scriptsDir, "*.lua"))
	require.NoError(t, err)
	var all strings.Builder
	for _, text := range files {
		all.Write(text)
	}
	for _, script := range scripts {
		require.Equal(t, 1, strings.Count(all.String(), `= mutantScript("`+filepath.Base(script)+`")`), script)
	}
	require.NotContains(t, all.String(), "//go:embed")
}

// TestTheDocsHaveTheTable: docs/mutants.md holds what -list prints.
func TestTheDocsHaveTheTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "mutants.md"))
	require.NoError(t, err)
	require.Contains(t, string(text), table(), "put the output of go run ./internal/mutants -list there")
}

func TestAStaleMutantIsAnError(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f.go"), []byte("one two two"), 0o600))
	for _, c := range []struct{ old, new, want string }{
		{"three", "x", "0 times"}, {"two", "x", "2 times"}, {"one", "one", "changes nothing"},
	} {
		m := mutant{edits: []edit{{"f.go", c.old, c.new}}}
		_, err := m.mutated(dir)
		require.ErrorContains(t, err, c.want)
	}
	m := mutant{edits: []edit{{"f.go", "one", "three"}, {"f.go", "three two", "four"}}}
	files, err := m.mutated(dir)
	require.NoError(t, err)
	require.Equal(t, "four two", string(files["f.go"]))
}

// TestOnlyATestThatFailsKills goes through what a run may come to.
func TestOnlyATestThatFailsKills(t *testing.T) {
	line := func(action, test, output string) string {
		b, err := json.Marshal(event{action, test, output})
		require.NoError(t, err)
		return string(b) + "\n"
	}
	m := mutant{killers: []string{"TestA"}}
	run := line("run", "TestA", "")
	for name, c := range map[string]struct{ out, failed, want string }{
		"fails":          {run + line("fail", "TestA", ""), "TestA", ""},
		"passes":         {run + line("pass", "TestA", ""), "", "it lives through TestA"},
		"another fails":  {run + line("pass", "TestA", "") + line("run", "TestB", "") + line("fail", "TestB", ""), "TestB", "it lives through TestA"},
		"only a part":    {run + line("fail", "TestA/part", "") + line("pass", "TestA", ""), "", "it lives through TestA"},
		"crash":          {run + line("output", "TestA", "panic: x"), "TestA (crash)", ""},
		"hang":           {run + line("output", "TestA", "panic: test timed out after 1s"), "TestA (hangs)", ""},
		"skipped":        {run + line("skip", "TestA", ""), "", "it lives through TestA"},
		"nothing ran":    {"no such binary\n", "", "no test ran"},
		"not a script":   {run + line("output", "TestA", "Script attempted to access nonexistent global variable 'x'") + line("fail", "TestA", ""), "TestA", "no valid script"},
		"not Lua at all": {run + line("output", "TestA", "ERR Error compiling script (new function): user_script:1") + line("fail", "TestA", ""), "TestA", "no valid script"},
	} {
		o := read([]byte(c.out))
		require.Equal(t, c.failed, strings.Join(o.failed, " "), name)
		err := m.verdict(&o)
		if c.want == "" {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, c.want, name)
		}
	}
}
