package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Most mutants change nothing but a script. They share one build of the tests, whose
// scripts come from a directory instead of from go:embed: that turns seconds of
// compiling for each of them into none.

// scriptsEnv tells that build where the scripts are.
const scriptsEnv = "REDRIVE_MUTANT_SCRIPTS"

const (
	storeDir   = "internal/store"
	scriptsDir = storeDir + "/lua"
	loader     = storeDir + "/mutant_scripts.go" // exists in the overlay only
)

var embedded = regexp.MustCompile(`//go:embed lua/(\w+\.lua)\n\t(\w+) string`)

// scriptLoader is a mutant of no consequence: scripts are read when the program starts.
func scriptLoader(root string) (files map[string][]byte, err error) {
	files = map[string][]byte{loader: []byte(`package store

import "os"

func mutantScript(name string) string {
	text, err := os.ReadFile(os.Getenv("` + scriptsEnv + `") + "/" + name)
	if err != nil {
		panic(err)
	}
	return string(text)
}
`)}
	sources, err := filepath.Glob(filepath.Join(root, storeDir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, path := range sources {
		src, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if embedded.Match(src) {
			files[storeDir+"/"+filepath.Base(path)] = embedded.ReplaceAll(src, []byte(`$2 = mutantScript("$1")`))
		}
	}
	if len(files) == 1 {
		return nil, errors.New("no script is embedded in " + storeDir)
	}
	return files, nil
}

// scriptOnly reports whether the mutant changes scripts and nothing else.
func (m *mutant) scriptOnly() bool {
	for _, e := range m.edits {
		if !strings.HasPrefix(e.file, scriptsDir+"/") {
			return false
		}
	}
	return true
}

// writeScripts fills dir with the scripts as the mutant has them.
func (m *mutant) writeScripts(root, dir string) error {
	files, err := m.mutated(root)
	if err != nil {
		return err
	}
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, scriptsDir))); err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.Remove(path); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
