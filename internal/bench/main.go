// Command bench runs redrive and asynq in turn against one private Redis and
// prints a table of what it measured. What counts is the ratios, and the CPU
// time per job: clocks are noisy.
//
//	cd internal/bench && go run .
//	go run . -quick -only drain50,retry
//	go run . -curves -svg curves.svg -csv samples.csv
//
// See docs/benchmarks.md for the method.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	redis.SetLogger(discard{})
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	rounds := flag.Int("rounds", 5, "how often each measure is taken, the sides in turn")
	quick := flag.Bool("quick", false, "about a minute in all: short runs, two rounds, a smaller backlog")
	only := flag.String("only", "", "take only these measures, by key, comma-separated")
	curves := flag.Bool("curves", false, "draw curves: throughput and CPU against slots, payload, queues, backlog, delayed jobs, processes")
	csvFile := flag.String("csv", "", "write every sample to this file")
	svgFile := flag.String("svg", "", "draw the results into this file")
	check := flag.Bool("check", false, "fail if a figure is worse than it must be")
	length := flag.Duration("run", 1500*time.Millisecond, "how long one timed run should last")
	soak := flag.Duration("soak", 0, "measure nothing but the memory of one busy worker, for so long")
	profile := flag.String("profile", "", "write CPU profiles of redrive and INFO commandstats into this directory")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}

	b := &bench{target: *length, quick: *quick, profile: *profile, rates: make(map[string]float64)}
	if *quick {
		b.target = 400 * time.Millisecond
		*rounds = min(*rounds, 2)
	}
	keys := selection(*only)
	all := probes(b)
	for _, k := range keys {
		if !slices.ContainsFunc(all, func(p probe) bool { return p.key == k }) {
			return fmt.Errorf("-only: no measure %q", k)
		}
	}
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = f.err
		}
	}()
	defer func() {
		if b.srv != nil {
			b.srv.stop()
		}
	}()
	b.fresh()
	if *soak > 0 {
		return b.soak(*soak)
	}
	b.header(os.Stdout, *rounds)

	var lines []line
	var points []point
	if !*curves || len(keys) > 0 {
		lines = b.measure(all, keys, *rounds)
		table(os.Stdout, lines)
		ceilings(os.Stdout, lines)
	}
	if *curves {
		points = b.curves(*rounds)
		curveTable(os.Stdout, points)
	}
	if *csvFile != "" {
		err = errors.Join(err, writeCSV(*csvFile, lines, points))
	}
	if *svgFile != "" {
		err = errors.Join(err, writeSVG(*svgFile, lines, points))
	}
	if bad := missed(lines); *check && len(bad) > 0 {
		err = errors.Join(err, fmt.Errorf("missed: %s", strings.Join(bad, "; ")))
	}
	return err
}

func selection(only string) []string {
	if only == "" {
		return nil
	}
	return strings.Split(only, ",")
}

// measure takes each measure in rounds, redrive and asynq in turn.
func (b *bench) measure(all []probe, keys []string, rounds int) []line {
	var lines []line
	for _, p := range all {
		if keys != nil && !slices.Contains(keys, p.key) {
			continue
		}
		first := len(lines)
		for _, r := range p.rows {
			lines = append(lines, line{row: r, probe: p.key})
		}
		n := rounds
		if p.once {
			n = 1
		}
		b.fresh()
		for i := range n {
			fmt.Fprintf(os.Stderr, "\r\033[K%s, round %d of %d", p.key, i+1, n)
			redrive, asynq := p.run(b, b.redrive), p.run(b, b.asynq)
			var ceiling figures
			if p.ceiling != nil {
				ceiling = p.ceiling(b)
			}
			for j := range lines[first:] {
				l := &lines[first+j]
				l.redrive = extend(l.redrive, redrive, l.metric)
				l.asynq = extend(l.asynq, asynq, l.metric)
				l.ceiled = extend(l.ceiled, ceiling, l.metric)
			}
		}
	}
	fmt.Fprint(os.Stderr, "\r\033[K")
	return lines
}

func extend(v []float64, f figures, metric string) []float64 {
	if x, ok := f[metric]; ok {
		return append(v, x)
	}
	return v
}

func (b *bench) header(w *os.File, rounds int) {
	info := b.srv.info("server")
	_, _ = fmt.Fprintf(w, "machine: %s, %d cores shared with Redis; %s %s/%s; redis-server %s, no persistence, TCP on the loopback\n",
		processor(), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, info["redis_version"])
	_, _ = fmt.Fprintf(w, "redrive: %s\n", b.redrive.describe(50))
	_, _ = fmt.Fprintf(w, "asynq:   v0.26.0; %s\n", b.asynq.describe(50))
	_, _ = fmt.Fprintf(w, "payload %d bytes, no-op handler, %d rounds, sides in turn, FLUSHALL between; a figure is: median (least–greatest)\n\n",
		payloadSize, rounds)
}

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown processor"
}

// discard silences go-redis, which logs each connection that a worker closes.
type discard struct{}

// Printf implements the logger of go-redis.
func (discard) Printf(context.Context, string, ...any) {}
