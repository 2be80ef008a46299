package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A mutant is one deliberate defect, and the tests that must catch it.
type mutant struct {
	name string
	// breaks lists what the defect breaks: an invariant, "I4", or the name of a promise
	// that has no number.
	breaks string
	// story says what goes wrong, in one sentence.
	story string
	edits []edit
	// pkg is the package of the killers, each of which fails by the defect.
	pkg     string
	killers []string
	// part, if not empty, names the subtest of the killers that is run: where they take
	// long to fail, one backend will do.
	part string
}

// An edit replaces the one place of a file, named from the module's root, where old
// stands. Short texts survive changes around them.
type edit struct{ file, old, new string }

// mutants lists all of them.
func mutants() []mutant { return slices.Concat(protocolMutants, engineMutants, pillarMutants) }

// mutated returns the files that the mutant changes, by name, as it makes them. A
// text that is not there exactly once means that the mutant is stale.
func (m *mutant) mutated(root string) (map[string][]byte, error) {
	out := make(map[string][]byte)
	for _, e := range m.edits {
		src, ok := out[e.file]
		if !ok {
			var err error
			if src, err = os.ReadFile(filepath.Join(root, e.file)); err != nil {
				return nil, err
			}
		}
		if n := strings.Count(string(src), e.old); n != 1 {
			return nil, fmt.Errorf("stale: %s has %d times, not once: %q", e.file, n, e.old)
		}
		if e.old == e.new {
			return nil, fmt.Errorf("changes nothing in %s", e.file)
		}
		out[e.file] = []byte(strings.Replace(string(src), e.old, e.new, 1))
	}
	if len(out) == 0 {
		return nil, errors.New("has no edits")
	}
	return out, nil
}

// patterns choose the killers of mutants, and no more of each than is needed.
func patterns(ms ...mutant) []string {
	var all []string
	for _, m := range ms {
		for _, name := range m.killers {
			pattern := "^" + name + "$"
			if m.part != "" {
				pattern += "/^" + m.part + "$"
			}
			all = append(all, pattern)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// writeOverlay writes files to dir and returns the file that tells go of them: see go
// help build, -overlay.
func writeOverlay(root, dir string, files map[string][]byte) (string, error) {
	replace := make(map[string]string)
	for name, text := range files {
		path := filepath.Join(dir, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, name)] = path
	}
	config, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, config, 0o600)
}

// table is the list of mutants as docs/mutants.md has it.
func table() string {
	var b strings.Builder
	b.WriteString("| mutant | breaks | what goes wrong | killed by |\n|---|---|---|---|\n")
	for _, m := range mutants() {
		fmt.Fprintf(&b, "| %s | %s | %s | `%s` |\n", m.name, m.breaks, m.story, strings.Join(m.killers, "`, `"))
	}
	return b.String()
}

// moduleRoot finds the directory of go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = up
	}
}
