// Command chaos runs jobs in several processes while a nemesis kills, stops and cuts
// off processes and Redis, and then proves from ledgers that the processes kept
// outside Redis what became of every job.
//
//	go run .                                    # 100,000 jobs, about 90 seconds
//	go run . -jobs 1000000                      # the long run, about a quarter of an hour
//	go run . -side both                         # redrive and asynq, side by side
//	go run . -check dir                         # judge a run again, from its ledgers
//
// See docs/chaos.md for the method and how to read the report.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if is, err := child(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func command() error {
	s := settings{Producers: 2}
	sides, dir, judge := "redrive", "", ""
	flag.IntVar(&s.Jobs, "jobs", 100_000, "how many jobs")
	flag.Uint64Var(&s.Seed, "seed", 1, "what the jobs and the faults follow from")
	flag.StringVar(&sides, "side", sides, "redrive, asynq or both")
	flag.IntVar(&s.Workers, "workers", 4, "how many worker processes")
	flag.DurationVar(&s.Length, "length", 0, "how long jobs are produced (default 70s, or 1 s per 1,300 jobs if that is longer)")
	flag.DurationVar(&s.Tail, "tail", 0, "how long to wait for the rest (default 30s for redrive, 4m for asynq)")
	flag.StringVar(&dir, "out", "", "where ledgers and report go (default a temporary directory, which is removed if all is well)")
	flag.StringVar(&judge, "check", "", "judge the run in this directory again, and run nothing")
	flag.Parse()
	if judge != "" {
		return inspect(judge, os.Stdout)
	}
	if s.Length == 0 {
		s.Length = lengthFor(s.Jobs)
	}
	names := []string{sides}
	if sides == "both" {
		names = sideNames
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	temporary := dir == ""
	if temporary {
		var err error
		if dir, err = os.MkdirTemp("", "redrive-chaos-"); err != nil {
			return err
		}
	}
	var vs []*verdict
	for _, name := range names {
		v, err := passage(ctx, s, name, filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("%s: %w; see %s", name, err, dir)
		}
		vs = append(vs, v)
	}
	var text bytes.Buffer
	report(&text, vs...)
	if err := os.WriteFile(filepath.Join(dir, reportFile), text.Bytes(), 0o644); err != nil {
		return err
	}
	if _, err := os.Stdout.Write(text.Bytes()); err != nil {
		return err
	}
	if err := judged(os.Stdout, vs...); err != nil {
		return fmt.Errorf("%w; see %s", err, dir)
	}
	if temporary {
		return os.RemoveAll(dir)
	}
	return nil
}

// lengthFor paces the production so that every fault has the time it takes.
func lengthFor(jobs int) time.Duration {
	return max(70*time.Second, time.Duration(jobs/1300)*time.Second)
}

// passage runs one side and judges it.
func passage(ctx context.Context, s settings, side, dir string) (*verdict, error) {
	s.Side = side
	if s.Tail == 0 {
		if s.Tail = 30 * time.Second; side == "asynq" {
			s.Tail = 4 * time.Minute
		}
	}
	if err := execute(ctx, s, dir); err != nil {
		return nil, err
	}
	e, err := load(dir)
	if err != nil {
		return nil, err
	}
	return check(e), nil
}

// inspect judges what is in a directory: a run, or one of each side.
func inspect(dir string, w io.Writer) error {
	dirs := []string{dir}
	if _, err := os.Stat(filepath.Join(dir, settingsFile)); err != nil {
		dirs = nil
		for _, name := range sideNames {
			if _, err := os.Stat(filepath.Join(dir, name, settingsFile)); err == nil {
				dirs = append(dirs, filepath.Join(dir, name))
			}
		}
	}
	if len(dirs) == 0 {
		return fmt.Errorf("there is no run in %s", dir)
	}
	var vs []*verdict
	for _, d := range dirs {
		e, err := load(d)
		if err != nil {
			return err
		}
		vs = append(vs, check(e))
	}
	report(w, vs...)
	return judged(w, vs...)
}

// judged lists what redrive promises and did not keep.
func judged(w io.Writer, vs ...*verdict) error {
	for _, v := range vs {
		violations := v.violations()
		if v.Side != "redrive" || len(violations) == 0 {
			continue
		}
		_, _ = fmt.Fprintln(w)
		for _, text := range violations {
			_, _ = fmt.Fprintln(w, "VIOLATION:", text)
		}
		return fmt.Errorf("redrive: %d violations", len(violations))
	}
	return nil
}
