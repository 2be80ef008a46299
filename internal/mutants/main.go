// Command mutants shows that the tests catch what they are there to catch: it puts one
// deliberate defect at a time into the library and runs the tests that must fail.
//
//	go run ./internal/mutants [-list] [-only name,…] [-full] [-v] [-j n]
//
// The defects are data, the tables in this package. They reach the compiler through go
// test -overlay, all in one build, and an environment variable that only that build
// reads chooses among them: no file of the library changes or knows of them.
// The exit status is not 0 when a mutant lives through a test that is named as its
// killer, when its text is not in the source any more, when it does not compile, or
// when those tests fail without it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// timeout ends the tests of one mutant: a defect may make them wait for ever.
const timeout = 90 * time.Second

func main() {
	list := flag.Bool("list", false, "print the mutants as a table and run nothing")
	only := flag.String("only", "", "run these mutants, by `name`, separated by commas")
	full := flag.Bool("full", false, "run all tests against each mutant, and list all that fail: takes an hour")
	verbose := flag.Bool("v", false, "print what the tests print")
	jobs := flag.Int("j", 2*runtime.NumCPU(), "mutants at a time: their tests wait more than they work")
	flag.Parse()
	if *list {
		fmt.Print(table())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	chosen, err := choose(*only)
	if err == nil {
		err = (&hunt{full: *full, verbose: *verbose, jobs: *jobs}).run(ctx, chosen)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// choose returns the mutants of those names, or all.
func choose(names string) ([]mutant, error) {
	all := mutants()
	if names == "" {
		return all, nil
	}
	var chosen []mutant
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(m mutant) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no mutant is named %q; see -list", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// A hunt runs tests against mutants.
type hunt struct {
	full, verbose bool
	jobs          int

	root, dir string // of the module, and for what is made
}

func (h *hunt) run(ctx context.Context, chosen []mutant) (err error) {
	if h.root, err = moduleRoot(); err != nil {
		return err
	}
	if h.dir, err = os.MkdirTemp("", "mutants-"); err != nil {
		return err
	}
	defer os.RemoveAll(h.dir)
	begin := time.Now()
	if err := h.baseline(ctx, chosen); err != nil {
		return err
	}
	fmt.Printf("%-36s %-13s %6s  %s\n", "mutant", "breaks", "time", "killed by")
	lines, errs := make([]chan string, len(chosen)), make([]error, len(chosen))
	next := make(chan int, len(chosen))
	for i := range chosen {
		lines[i] = make(chan string, 1)
		next <- i
	}
	close(next)
	for range h.jobs {
		go func() {
			for i := range next {
				var line string
				line, errs[i] = h.kill(ctx, &chosen[i])
				lines[i] <- line
			}
		}()
	}
	var alive []string
	for i := range chosen { // in the order of the table
		fmt.Print(<-lines[i])
		if errs[i] != nil {
			alive = append(alive, chosen[i].name)
		}
	}
	fmt.Printf("%d mutants, %d killed, in %v\n", len(chosen), len(chosen)-len(alive), time.Since(begin).Round(time.Second))
	if len(alive) > 0 {
		return fmt.Errorf("not killed: %s", strings.Join(alive, ", "))
	}
	return nil
}

// baseline compiles the tests, and runs the killers on the library as it is: a test
// that fails anyway proves nothing.
func (h *hunt) baseline(ctx context.Context, chosen []mutant) error {
	files, err := library(h.root, mutants())
	if err != nil {
		return err
	}
	overlay, err := writeOverlay(h.root, h.dir, files)
	if err != nil {
		return err
	}
	scripts := filepath.Join(h.root, scriptsDir)
	for _, pkg := range packages {
		here := slices.DeleteFunc(slices.Clone(chosen), func(m mutant) bool { return m.pkg != pkg })
		if len(here) == 0 && !h.full {
			continue
		}
		begin := time.Now()
		if err := build(ctx, h.root, pkg, overlay, h.binary(pkg)); err != nil {
			return err
		}
		fmt.Printf("compiled the tests of %s in %v\n", pkg, time.Since(begin).Round(100*time.Millisecond))
		if len(here) == 0 {
			continue
		}
		tests := patterns(here...)
		o := h.test(ctx, pkg, "", scripts, strings.Join(tests, "|"), 2*timeout)
		for _, name := range o.failed { // those that measure time get a second chance, alone
			again := h.test(ctx, pkg, "", scripts, "^"+plain(name)+"$", timeout)
			o.passed = append(o.passed, again.passed...)
			o.output += again.output
		}
		var names []string
		for _, m := range here {
			names = append(names, m.killers...)
		}
		slices.Sort(names)
		names = slices.Compact(names)
		if len(o.passed) != len(names) {
			return fmt.Errorf("without a mutant %d of %d tests of %s pass; failed: %s %s\n%s",
				len(o.passed), len(names), pkg, strings.Join(o.failed, ", "), o.broken, o.output)
		}
		fmt.Printf("without a mutant %d tests of %s pass, in %v\n", len(names), pkg, o.took.Round(100*time.Millisecond))
	}
	return nil
}

// binary is where the compiled tests of a package are.
func (h *hunt) binary(pkg string) string { return filepath.Join(h.dir, filepath.Base(pkg)+".test") }

func (h *hunt) test(ctx context.Context, pkg, mutant, scripts, pattern string, limit time.Duration) outcome {
	return test(ctx, filepath.Join(h.root, pkg), h.binary(pkg), pattern, limit,
		mutantEnv+"="+mutant, scriptsEnv+"="+scripts)
}

// kill runs the tests against one mutant and returns its line of the table. An error
// says that it lives, or that the run proves nothing.
func (h *hunt) kill(ctx context.Context, m *mutant) (line string, err error) {
	begin := time.Now()
	var o outcome
	if h.full {
		o, err = h.against(ctx, m, packages, "", 10*timeout)
	} else {
		o, err = h.against(ctx, m, []string{m.pkg}, strings.Join(patterns(*m), "|"), timeout)
	}
	if err == nil {
		err = m.verdict(&o)
	}
	what := strings.Join(o.failed, ", ")
	if err != nil {
		what = "NOT KILLED: " + err.Error()
	}
	line = fmt.Sprintf("%-36s %-13s %5.1fs  %s\n", m.name, m.breaks, time.Since(begin).Seconds(), what)
	if h.verbose {
		line += o.output
	}
	return line, err
}

// packages are those that -full tests.
var packages = []string{rootPkg, storePkg, wirePkg}

// against runs tests of packages with the mutant in them.
func (h *hunt) against(ctx context.Context, m *mutant, pkgs []string, pattern string, limit time.Duration) (all outcome, err error) {
	dir, err := os.MkdirTemp(h.dir, m.name+"-")
	if err != nil {
		return all, err
	}
	scripts, err := m.scripts(h.root, dir)
	if err != nil {
		return all, err
	}
	for _, pkg := range pkgs {
		o := h.test(ctx, pkg, m.name, scripts, pattern, limit)
		all.failed = append(all.failed, o.failed...)
		all.output += o.output
		if all.broken == "" {
			all.broken = o.broken
		}
	}
	return all, nil
}

// verdict returns nil if each of the killers has failed.
func (m *mutant) verdict(o *outcome) error {
	if o.broken != "" {
		return errors.New(o.broken)
	}
	var lived []string
	for _, name := range m.killers {
		if !slices.ContainsFunc(o.failed, func(f string) bool { return plain(f) == name }) {
			lived = append(lived, name)
		}
	}
	if len(lived) > 0 {
		return fmt.Errorf("it lives through %s", strings.Join(lived, ", "))
	}
	return nil
}
