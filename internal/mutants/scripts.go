package main

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	storeDir   = "internal/store"
	scriptsDir = storeDir + "/lua"
	// scriptsEnv tells the tests where the scripts are.
	scriptsEnv = "REDRIVE_MUTANT_SCRIPTS"
	loader     = storeDir + "/mutant_scripts.go" // exists in the overlay only
)

var embedded = regexp.MustCompile(`//go:embed lua/(\w+\.lua)\n\t(\w+) string`)

// scriptLoader makes the library read its scripts from a directory when it starts, and
// not from go:embed.
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
	for _, file := range sources {
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if embedded.Match(src) {
			files[storeDir+"/"+filepath.Base(file)] = embedded.ReplaceAll(src, []byte(`$2 = mutantScript("$1")`))
		}
	}
	if len(files) == 1 {
		return nil, errors.New("no script is embedded in " + storeDir)
	}
	return files, nil
}

func isScript(file string) bool { return strings.HasSuffix(file, ".lua") }

// scripts returns the directory of the scripts as the mutant has them: that of the
// library, or, if it changes any, dir.
func (m *mutant) scripts(root, dir string) (string, error) {
	own := filepath.Join(root, scriptsDir)
	files, err := m.mutated(root)
	if err != nil {
		return "", err
	}
	changed := false
	for name, text := range files {
		if !isScript(name) {
			continue
		}
		if !changed {
			if err := os.CopyFS(dir, os.DirFS(own)); err != nil {
				return "", err
			}
			changed = true
		}
		if err := os.WriteFile(filepath.Join(dir, path.Base(name)), text, 0o600); err != nil {
			return "", err
		}
	}
	if !changed {
		return own, nil
	}
	return dir, nil
}
