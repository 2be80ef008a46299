package store_test

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// This file is the notation of transcripts; testdata/transcripts/README.md
// describes it.

// A stored is what one key holds: a row is [field value] of a hash, [score member]
// of a sorted set, [element] of a list, [value] of a string.
type stored struct {
	kind string
	ttl  int64 // ms, 0 for none
	rows [][]string
}

// A state is what Redis holds, by key.
type state map[string]stored

// A clock stands for the time of Redis: µs since the epoch. Near it, numbers of ms
// and of µs are written as NOW and US.
type clock int64

const (
	nearMillis = 48 * 3600 * 1000
	nearMicros = nearMillis * 1000
)

var (
	digits  = regexp.MustCompile(`\d+`)
	numbers = regexp.MustCompile(`\b\d+\b`)
	symbols = regexp.MustCompile(`\b(NOW|US)([+-]\d+)?\b`)
	bare    = regexp.MustCompile(`^[!#-}][!-~]*$`) // neither " nor ~ comes first
	loops   = regexp.MustCompile(`\{(\d+)\.\.(\d+):([^{}]*)\}`)
)

// symbolic replaces numbers near the clock by symbols.
func (c clock) symbolic(s string) string {
	return numbers.ReplaceAllStringFunc(s, func(num string) string {
		n, _ := strconv.ParseInt(num, 10, 64)
		name, base, near := "NOW", int64(c)/1000, int64(nearMillis)
		if len(num) == 16 {
			name, base, near = "US", int64(c), nearMicros
		}
		switch d := n - base; {
		case len(num) != 13 && len(num) != 16, d < -near, d > near:
			return num
		case d == 0:
			return name
		default:
			return fmt.Sprintf("%s%+d", name, d)
		}
	})
}

// literal is the inverse of symbolic.
func (c clock) literal(s string) string {
	return symbols.ReplaceAllStringFunc(s, func(m string) string {
		name, base := "NOW", int64(c)/1000
		if strings.HasPrefix(m, "US") {
			name, base = "US", int64(c)
		}
		d, _ := strconv.ParseInt(m[len(name):], 10, 64)
		return strconv.FormatInt(base+d, 10)
	})
}

// word writes a string as one word.
func (c clock) word(s string) string {
	s = c.symbolic(s)
	if bare.MatchString(s) && len(s) <= longWord {
		return s
	}
	return quoted(s)
}

// quoted puts a string in quotes, behind ~ if it is shortened.
func quoted(s string) string {
	if short := looped(s); short != s {
		return "~" + strconv.Quote(short)
	}
	return strconv.Quote(s)
}

// words reads a line of words.
func (c clock) words(line string) ([]string, error) {
	var out []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		rest, loop := strings.CutPrefix(line, "~")
		if !strings.HasPrefix(rest, `"`) {
			one, more, _ := strings.Cut(line, " ")
			out, line = append(out, c.literal(one)), more
			continue
		}
		text, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, line)
		}
		line = rest[len(text):]
		if text, err = strconv.Unquote(text); err != nil {
			return nil, err
		}
		if loop {
			text = unlooped(text)
		}
		out = append(out, c.literal(text))
	}
	return out, nil
}

func (c clock) row(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = c.word(w)
	}
	return strings.Join(out, " ")
}

// minLoop is how many repetitions are worth a loop; longWord is the length up to
// which a string is written as it is.
const minLoop, longWord = 4, 120

// A run is n repetitions of a template, in which # stands for a number that grows.
type run struct {
	n, size  int // size is the length of what it stands for
	span     string
	template string
}

// findRun finds how the repetitions of unit at the start of s are best written.
func findRun(s, unit string) (best run) {
	for _, num := range append(digits.FindAllString(unit, -1), "") {
		r := run{template: unit}
		first := 1
		if num != "" {
			r.template = strings.ReplaceAll(unit, num, "#")
			first, _ = strconv.Atoi(num)
		}
		for {
			next := strings.ReplaceAll(r.template, "#", fmt.Sprintf("%0*d", len(num), first+r.n))
			if next == "" || len(num) > 9 || !strings.HasPrefix(s[r.size:], next) {
				break
			}
			r.n, r.size = r.n+1, r.size+len(next)
		}
		r.span = fmt.Sprintf("%0*d..%d", len(num), first, first+r.n-1)
		if r.n > best.n {
			best = r
		}
	}
	return best
}

// looped shortens a long string that repeats itself.
func looped(s string) string {
	if len(s) <= longWord || strings.ContainsAny(s, "{}#") {
		return s
	}
	var b strings.Builder
	for s != "" {
		best, text := run{size: 40}, s[:1]
		for l := 1; l <= min(40, len(s)/minLoop); l++ {
			if r := findRun(s, s[:l]); r.n >= minLoop && r.size > best.size {
				best, text = r, "{"+r.span+":"+r.template+"}"
			}
		}
		b.WriteString(text)
		s = s[max(best.size*min(best.n, 1), 1):]
	}
	return b.String()
}

func unlooped(s string) string {
	return loops.ReplaceAllStringFunc(s, func(m string) string {
		part := loops.FindStringSubmatch(m)
		return strings.Join(expand(part[1], part[2], part[3]), "")
	})
}

func expand(from, to, template string) []string {
	first, _ := strconv.Atoi(from)
	last, _ := strconv.Atoi(to)
	var out []string
	for i := first; i <= last; i++ {
		out = append(out, strings.ReplaceAll(template, "#", fmt.Sprintf("%0*d", len(from), i)))
	}
	return out
}

// lines indents the lines; a run of them that differ by a number becomes one.
func lines(b *strings.Builder, indent string, all []string) {
	for i := 0; i < len(all); {
		var r run
		if !strings.Contains(all[i], "#") {
			r = findRun(strings.Join(all[i:], "\n")+"\n", all[i]+"\n")
		}
		if r.n < minLoop {
			fmt.Fprintf(b, "%s%s\n", indent, all[i])
			i++
			continue
		}
		fmt.Fprintf(b, "%sfor %s: %s", indent, r.span, r.template)
		i += r.n
	}
}

var forLine = regexp.MustCompile(`^for (\d+)\.\.(\d+): (.*)$`)

// unlines is the inverse of lines.
func unlines(all []string) []string {
	var out []string
	for _, l := range all {
		l = strings.TrimSpace(l)
		if m := forLine.FindStringSubmatch(l); m != nil {
			out = append(out, expand(m[1], m[2], m[3])...)
		} else {
			out = append(out, l)
		}
	}
	return out
}

func (c clock) state(s state) string {
	var b strings.Builder
	keys := make([]string, 0, len(s))
	for key := range s {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		v := s[key]
		fmt.Fprintf(&b, "%s %s", v.kind, key)
		if v.ttl > 0 {
			fmt.Fprintf(&b, " ttl %d", v.ttl)
		}
		b.WriteByte('\n')
		rows := make([]string, len(v.rows))
		for i, r := range v.rows {
			rows[i] = c.row(r)
		}
		lines(&b, "  ", rows)
	}
	return b.String()
}

func (c clock) parseState(text string) (state, error) {
	s := make(state)
	key := ""
	for _, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if l == "" {
			continue
		}
		if !strings.HasPrefix(l, " ") {
			head := strings.Fields(l)
			v := stored{kind: head[0]}
			key = head[1]
			if len(head) == 4 {
				v.ttl, _ = strconv.ParseInt(head[3], 10, 64)
			}
			s[key] = v
			continue
		}
		v := s[key]
		for _, l := range unlines([]string{l}) {
			row, err := c.words(l)
			if err != nil {
				return nil, err
			}
			v.rows = append(v.rows, row)
		}
		s[key] = v
	}
	return s, nil
}

// reply writes what a script returned.
func (c clock) reply(v any) string {
	var b strings.Builder
	c.writeReply(&b, "", v)
	return b.String()
}

func (c clock) writeReply(b *strings.Builder, indent string, v any) {
	list, ok := v.([]any)
	if !ok {
		lines(b, indent, []string{c.scalar(v)})
		return
	}
	if line := c.inline(list); len(line) <= longWord {
		fmt.Fprintf(b, "%s%s\n", indent, line)
		return
	}
	fmt.Fprintf(b, "%s[\n", indent)
	var flat []string
	for _, e := range list {
		if _, nested := e.([]any); nested {
			lines(b, indent+"  ", flat)
			flat = nil
			c.writeReply(b, indent+"  ", e)
			continue
		}
		flat = append(flat, c.scalar(e))
	}
	lines(b, indent+"  ", flat)
	fmt.Fprintf(b, "%s]\n", indent)
}

func (c clock) inline(list []any) string {
	parts := make([]string, len(list))
	for i, e := range list {
		if inner, ok := e.([]any); ok {
			parts[i] = c.inline(inner)
		} else {
			parts[i] = c.scalar(e)
		}
	}
	return "[" + strings.Join(parts, " ") + "]"
}

func (c clock) scalar(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case string:
		return quoted(c.symbolic(v))
	}
	return c.symbolic(fmt.Sprint(v))
}

// argRows breaks arguments into lines, for the reader: what goes before, then one
// line per job or letter, then the rest. It guesses where it does not know.
func argRows(script string, argv []string) (rows [][]string) {
	take := func(n int) {
		if n = min(n, len(argv)); n > 0 {
			rows, argv = append(rows, argv[:n]), argv[n:]
		}
	}
	rowsOf := func(n, width int) {
		for range n {
			take(width)
		}
	}
	count := func(at int) int {
		if at >= len(argv) {
			return 0
		}
		n, _ := strconv.Atoi(argv[at])
		return n
	}
	settle, claims := strings.CutSuffix(script, "_and_claim")
	if claims {
		take(6)
	}
	width := map[string]int{"finish": 3, "putback": 3, "bury": 5}[settle]
	switch {
	case width > 0: // the fence's, ids, tokens, then what the script adds for each job
		jobs, tokens := count(4), count(5)
		take(6)
		rowsOf(jobs, 1)
		rowsOf(tokens, 1)
		if settle == "finish" {
			take(1)
		}
		rowsOf(jobs, width)
	case script == "enqueue":
		jobs := count(3)
		take(4)
		rowsOf(jobs, 2)
		rowsOf(jobs, 1)
	case script == "dead_settle":
		take(3)
		rowsOf(len(argv)/7, 7)
	case script == "dead_release":
		rowsOf(len(argv), 1)
	case script == "check_owner" || script == "check_task":
		take(4)
		rowsOf(len(argv), 1)
	case script == "check_letter":
		take(3)
		rowsOf(len(argv)/7, 7)
	case script == "check_mend": // the memo's, the owners, the jobs
		owners := count(4)
		take(5)
		take(owners)
		rowsOf(len(argv)/2, 2)
	case script == "check_rest": // the memo's, the counters, the jobs
		counters := count(4)
		take(5)
		take(counters)
		rowsOf(len(argv)/2, 2)
	}
	for len(argv) > 0 {
		take(runWidth(argv))
	}
	return rows
}

// runWidth is how many words belong on a line: where they repeat themselves, those
// of one repetition, else those up to there.
func runWidth(argv []string) int {
	for i := range min(len(argv), 16) {
		rest := strings.Join(argv[i:], "\n") + "\n"
		for w := 1; w <= 8 && i+w <= len(argv); w++ {
			unit := strings.Join(argv[i:i+w], "\n") + "\n"
			if !strings.Contains(unit, "#") && findRun(rest, unit).n >= minLoop {
				return cmp.Or(i, w)
			}
		}
	}
	return 16
}

// What the notation writes, it reads: no two states have one text.
func TestTranscriptNotationIsReversible(t *testing.T) {
	t.Parallel()
	c := clock(1_800_000_000_000_250)
	text := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[ -~]{0,8}`),
		rapid.Map(rapid.IntRange(0, 60), func(n int) string {
			return "j001," + strings.Join(expand("075", fmt.Sprint(75+n), "j#,"), "")
		}),
		rapid.Map(rapid.Int64Range(-1e6, 1e6), func(d int64) string { return fmt.Sprintf("7:%d", int64(c)/1000+d) }),
		rapid.Map(rapid.Int64Range(-1e6, 1e6), func(d int64) string { return fmt.Sprint(int64(c) + d) }),
	).Filter(func(s string) bool { return !symbols.MatchString(s) })
	rapid.Check(t, func(t *rapid.T) {
		s := make(state)
		for i := range rapid.IntRange(1, 3).Draw(t, "keys") {
			v := stored{kind: "hash", ttl: 10000 * int64(i)}
			for _, l := range rapid.SliceOfN(text, 1, 5).Draw(t, "fields") {
				v.rows = append(v.rows, []string{l, text.Draw(t, "value")})
			}
			s[fmt.Sprint("key", i)] = v
		}
		back, err := c.parseState(c.state(s))
		if err != nil || !equalStates(s, back) {
			t.Fatalf("%v: %v\n%s\n%v", s, err, c.state(s), back)
		}
	})
	many := state{"k": {kind: "list"}}
	for i := range 500 {
		many["k"] = stored{kind: "list", rows: append(many["k"].rows, []string{fmt.Sprintf("j%03d", i+1)})}
	}
	require.Equal(t, "list k\n  for 001..500: j#\n", c.state(many))
	back, err := c.parseState(c.state(many))
	require.NoError(t, err)
	require.Equal(t, many, back)
	require.Equal(t, "[NOW+5 \"1:US\" nil [] [-1]]\n",
		c.reply([]any{int64(1_800_000_000_005), "1:1800000000000250", nil, []any{}, []any{int64(-1)}}))
}

func equalStates(a, b state) bool {
	if len(a) != len(b) {
		return false
	}
	for key, v := range a {
		w := b[key]
		if v.kind != w.kind || v.ttl != w.ttl || !slices.EqualFunc(v.rows, w.rows, slices.Equal[[]string]) {
			return false
		}
	}
	return true
}
