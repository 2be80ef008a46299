package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// report writes the facts of one side, or of several side by side.
func report(w io.Writer, vs ...*verdict) {
	s := vs[0].settings
	_, _ = fmt.Fprintf(w, "%d jobs, seed %d, %d workers, %d producers, %v of production\n\n", s.Jobs, s.Seed, s.Workers, s.Producers, s.Length)
	rows := [][]string{{""}}
	add := func(title string, f func(*verdict) string) {
		row := []string{title}
		for _, v := range vs {
			row = append(row, f(v))
		}
		rows = append(rows, row)
	}
	count := func(title string, f func(*verdict) int) {
		add(title, func(v *verdict) string { return fmt.Sprint(f(v)) })
	}
	for _, v := range vs {
		rows[0] = append(rows[0], v.Side)
		_, _ = fmt.Fprintf(w, "%s: %s\n", v.Side, v.Configuration)
	}
	_, _ = fmt.Fprintln(w)
	count("acknowledged", func(v *verdict) int { return v.Jobs - len(v.unacknowledged) })
	count("starts of handlers", func(v *verdict) int { return v.starts })
	count("lost", func(v *verdict) int { return len(v.lost) })
	count("not finished at the end of the run", func(v *verdict) int { return len(v.unfinished) })
	count("unexpected", func(v *verdict) int { return len(v.unexpected) })
	count("extra starts, unexplained", func(v *verdict) int { return len(v.unexplained) })
	add("extra starts, by cause", func(v *verdict) string { return causes(v.duplicates) })
	count("jobs whose handler succeeded more than once", func(v *verdict) int { return v.twice })
	add("stale effects", confirmed(func(v *verdict) string { return fmt.Sprint(len(v.stale)) }))
	add("late ends that Redis refused", confirmed(func(v *verdict) string { return fmt.Sprint(v.refused) }))
	add("ends that were written and not heard of", confirmed(func(v *verdict) string { return fmt.Sprint(v.unheard) }))
	count("overlapping handlers of a job, unexplained", func(v *verdict) int { return len(v.unexplainedOverlaps) })
	add("overlapping handlers, by cause", func(v *verdict) string { return causes(v.overlaps) })
	count("delayed jobs started early", func(v *verdict) int { return len(v.early) })
	count("jobs that lost a retry to something else than a failure", func(v *verdict) int { return len(v.burned) })
	add("findings in Redis", confirmed(func(v *verdict) string { return fmt.Sprint(len(v.books)) }))
	add("kill -9 to the next start, a worker and Redis unharmed", func(v *verdict) string { return spread(v.recoveries) })
	add("kill -9 to the next start, all", func(v *verdict) string { return spread(v.allRecoveries) })
	add("Redis back to the first confirmed success", confirmed(func(v *verdict) string { return spread(sorted(v.firstDones)) }))
	add("Redis back to the first new run", func(v *verdict) string { return spread(sorted(v.firstRuns)) })
	add("faults shown to have happened", func(v *verdict) string { return happened(v) })
	add("hold-ups of the machine", func(v *verdict) string { return fmt.Sprintf("%d of processes, %d of Redis", v.stalls, v.redisStalls) })
	grid(w, rows)
}

func confirmed(f func(*verdict) string) func(*verdict) string {
	return func(v *verdict) string {
		if v.firstDones == nil {
			return "cannot be seen"
		}
		return f(v)
	}
}

func sorted(d []time.Duration) []time.Duration { return slices.Sorted(slices.Values(d)) }

func spread(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "none"
	}
	text := func(d time.Duration) string {
		if d == time.Duration(1<<63-1) {
			return "never"
		}
		return fmt.Sprintf("%.3g s", d.Seconds())
	}
	return fmt.Sprintf("p50 %s, p99 %s, max %s (%d)", text(quantile(sorted, 0.5)), text(quantile(sorted, 0.99)), text(sorted[len(sorted)-1]), len(sorted))
}

func causes(n map[string]int) string {
	var parts []string
	for _, k := range sortedKeys(n) {
		parts = append(parts, fmt.Sprintf("%s %d", k, n[k]))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func happened(v *verdict) string {
	n := maps.Clone(v.faults)
	maps.DeleteFunc(n, func(kind string, _ int) bool { return v.Planned[kind] == 0 })
	return causes(n)
}

func grid(w io.Writer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for n, r := range rows {
		for i, c := range r {
			_, _ = fmt.Fprintf(w, "| %s%s ", c, strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)))
		}
		_, _ = fmt.Fprintln(w, "|")
		if n == 0 {
			for i := range r {
				_, _ = fmt.Fprintf(w, "|%s", strings.Repeat("-", width[i]+2))
			}
			_, _ = fmt.Fprintln(w, "|")
		}
	}
}
