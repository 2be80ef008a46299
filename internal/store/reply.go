package store

import (
	"strconv"
	"time"
)

// A reply takes a script's list apart, from the first element to the last. What is
// not as the script's header says makes it bad, and the rest of it zero: a guess in
// place of an error would move jobs.
type reply struct {
	list []any
	bad  bool
}

// readReply begins to read a reply of n elements.
func readReply(res any, n int) reply {
	list, ok := res.([]any)
	return reply{list: list, bad: !ok || len(list) != n}
}

func (r *reply) next() any {
	if r.bad || len(r.list) == 0 {
		r.bad = true
		return nil
	}
	v := r.list[0]
	r.list = r.list[1:]
	return v
}

// number reads an integer within bounds.
func (r *reply) number(low, high int64) int64 {
	n, ok := r.next().(int64)
	if !ok || n < low || n > high {
		r.bad = true
		return 0
	}
	return n
}

func (r *reply) count() int { return int(r.number(0, maxCount)) }

func (r *reply) flag() bool { return r.number(0, 1) == 1 }

// maxCount bounds what a script can count, maxMillis what it can read off a clock.
const maxCount, maxMillis = 1<<53 - 1, 1<<53 - 1

// time reads ms since the epoch.
func (r *reply) time() time.Time { return time.UnixMilli(r.number(0, maxMillis)) }

// due reads ms since the epoch, or the zero time for -1.
func (r *reply) due() time.Time {
	if ms := r.number(-1, maxMillis); ms >= 0 {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

func (r *reply) text() string {
	s, ok := r.next().(string)
	r.bad = r.bad || !ok
	return s
}

// token reads what tokens and fences are: a number in digits.
func (r *reply) token() int64 {
	n, ok := digits(r.text())
	r.bad = r.bad || !ok || n == 0
	return int64(n)
}

// cursor reads where a SCAN goes on.
func (r *reply) cursor() uint64 {
	n, err := strconv.ParseUint(r.text(), 10, 64)
	r.bad = r.bad || err != nil
	return n
}

// score reads a time of a sorted set.
func (r *reply) score() int64 {
	f, err := strconv.ParseFloat(r.text(), 64)
	if err != nil || !(f >= 0 && f <= maxMillis) {
		r.bad = true
		return 0
	}
	return int64(f)
}

// optional reads a text, or what does not exist.
func (r *reply) optional() (s string, ok bool) {
	v := r.next()
	if v == nil {
		return "", false
	}
	s, ok = v.(string)
	r.bad = r.bad || !ok
	return s, ok
}

// column reads a list of n, or of any length if n is negative, to be read in turn.
func (r *reply) column(n int) reply {
	list, ok := r.next().([]any)
	if !ok || n >= 0 && len(list) != n {
		r.bad = true
	}
	return reply{list: list, bad: r.bad}
}

func (r *reply) texts() []string {
	c := r.column(-1)
	var out []string
	for len(c.list) > 0 && !c.bad {
		out = append(out, c.text())
	}
	r.bad = r.bad || c.bad
	return out
}

// letters reads three columns: ids, times of death and entries.
func (r *reply) letters() []Letter {
	ids := r.column(-1)
	out := make([]Letter, len(ids.list))
	died, entries := r.column(len(out)), r.column(len(out))
	for i := range out {
		out[i] = Letter{ID: ids.text(), Died: died.score(), Entry: entries.text()}
	}
	r.bad = r.bad || ids.bad || died.bad || entries.bad
	return out
}

// yes reads the reply of a script that says 1 or 0.
func yes(res any) (yes, ok bool) {
	n, ok := res.(int64)
	return n == 1, ok && (n == 0 || n == 1)
}

// digits reads a number as Lua writes it: no sign, no leading zero.
func digits(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && (s[0] >= '1' && s[0] <= '9' || s == "0")
}
