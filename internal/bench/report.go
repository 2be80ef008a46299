package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// line is a row with what was measured for it, round by round.
type line struct {
	row
	probe                  string
	redrive, asynq, ceiled []float64
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// ratio is the median of the ratios of the rounds: what slows the machine down
// for one round slows both sides.
func (l *line) ratio() (float64, bool) {
	var v []float64
	for i := range min(len(l.redrive), len(l.asynq)) {
		if l.asynq[i] != 0 {
			v = append(v, l.redrive[i]/l.asynq[i])
		}
	}
	return median(v), len(v) > 0
}

// verdict is "ok", "MISSED", or empty where nothing must hold.
func (l *line) verdict() string {
	if l.must == nil || len(l.redrive) == 0 {
		return ""
	}
	v, ok := l.ratio()
	if l.must.absolute {
		v, ok = median(l.redrive), true
	}
	if ok && l.must.holds(v) {
		return "ok"
	}
	return "MISSED"
}

func quantity(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 1000:
		return thousands(int(v + 0.5))
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.095:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// spread shows a median, and the least and the greatest where they differ.
func spread(v []float64) string {
	switch len(v) {
	case 0:
		return "–"
	case 1:
		return quantity(v[0])
	}
	return fmt.Sprintf("%s (%s–%s)", quantity(median(v)), quantity(slices.Min(v)), quantity(slices.Max(v)))
}

// table prints lines as a table that is Markdown as well.
func table(w io.Writer, lines []line) {
	rows := [][]string{{"measure", "unit", "redrive", "asynq", "ratio", "must", "aim", ""}}
	for i := range lines {
		l := &lines[i]
		if len(l.redrive) == 0 {
			continue
		}
		r := []string{l.title, l.unit, spread(l.redrive), spread(l.asynq), "", "", l.aim, l.verdict()}
		if v, ok := l.ratio(); ok {
			r[4] = quantity(v) + "×"
		}
		if l.must != nil {
			r[5] = l.must.text
		}
		rows = append(rows, r)
	}
	grid(w, rows)
}

// ceilings prints how near to bare Redis redrive comes.
func ceilings(w io.Writer, lines []line) {
	rows := [][]string{{"same Redis calls, no jobs", "redrive", "bare Redis", "redrive reaches"}}
	for _, l := range lines {
		if len(l.ceiled) == 0 || !slices.Contains([]string{"rate", "redis_cpu", "client_cpu", "p50", "p99"}, l.metric) {
			continue
		}
		r := []string{l.title + ", " + l.unit, quantity(median(l.redrive)), spread(l.ceiled), ""}
		if l.metric == "rate" {
			r[3] = fmt.Sprintf("%.0f %%", 100*median(l.redrive)/median(l.ceiled))
		}
		rows = append(rows, r)
	}
	if len(rows) > 1 {
		_, _ = fmt.Fprintln(w)
		grid(w, rows)
	}
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
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i == 0 || n == 0 {
				_, _ = fmt.Fprintf(w, "| %s%s ", c, pad)
			} else {
				_, _ = fmt.Fprintf(w, "| %s%s ", pad, c)
			}
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

// missed lists what must hold and does not.
func missed(lines []line) []string {
	var out []string
	for i := range lines {
		if lines[i].verdict() == "MISSED" {
			out = append(out, lines[i].title+" "+lines[i].must.text)
		}
	}
	return out
}

// writeCSV writes every sample of every round.
func writeCSV(file string, lines []line, points []point) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	_ = w.Write([]string{"measure", "metric", "x", "side", "round", "value", "unit"})
	for _, l := range lines {
		for side, v := range map[string][]float64{"redrive": l.redrive, "asynq": l.asynq, "bare": l.ceiled} {
			for i, x := range v {
				_ = w.Write([]string{l.probe, l.metric, "", side, strconv.Itoa(i + 1), fmt.Sprint(x), l.unit})
			}
		}
	}
	for _, p := range points {
		for metric, unit := range map[string]string{"rate": "jobs/s", "redis_cpu": "µs/job", "client_cpu": "µs/job"} {
			for i, f := range p.rounds {
				_ = w.Write([]string{p.curve, metric, p.x, p.side, strconv.Itoa(i + 1), fmt.Sprint(f[metric]), unit})
			}
		}
	}
	w.Flush()
	if err := w.Error(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
