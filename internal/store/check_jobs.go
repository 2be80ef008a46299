package store

import (
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// jobs checks all places of a job against each other.
//
// Nothing but the list itself tells whether a job is in ready, and looking for one
// walks it. So ready is read through, from its tail: what is pushed or popped
// meanwhile hides no job that stays. A job that has a payload, was in no other place
// before that and was not seen, either was lost, or was popped before it was reached:
// then it is in another place, or was put back, and a counter has moved. If none has,
// ready need not be walked for the job.
func (c *checker) jobs(ctx context.Context) error {
	moved, err := c.moves(ctx)
	if err != nil {
		return err
	}
	suspects := make(map[string]string) // id → SHA-1 of the payload
	if err := c.readReady(ctx, func(ids []string, codes string, fresh int) {
		for i, id := range ids {
			at := maphash.String(c.seed, id)
			if _, twice := c.ready[at]; twice && i < fresh || codes[i] != '.' {
				suspects[id] = ""
			}
			c.ready[at] = struct{}{}
		}
	}); err != nil {
		return err
	}
	look := func(ids []string) error {
		l, err := c.look(ctx, "ids", ids)
		for i, id := range l.ids {
			if l.codes[i] == 'x' || l.codes[i] == 'm' {
				suspects[id] = ""
			}
		}
		return err
	}
	if err := c.scanSorted(ctx, c.q.keys.Delayed, look); err != nil {
		return err
	}
	for _, key := range c.ownerKeys() {
		if err := c.scanHash(ctx, key, func(ids []string) error {
			return look(slices.DeleteFunc(ids, func(id string) bool { return strings.HasPrefix(id, "#") }))
		}); err != nil {
			return err
		}
	}
	if err := c.judge(ctx, "", suspects); err != nil {
		return err
	}
	lost, err := c.unseen(ctx)
	if err != nil || len(lost) == 0 {
		return err
	}
	if c.Mend && len(suspects) > 0 { // what was mended moved them
		if moved, err = c.moves(ctx); err != nil {
			return err
		}
		if lost, err = c.unseen(ctx); err != nil {
			return err
		}
	}
	if err := c.readReady(ctx, func(ids []string, _ string, _ int) {
		for _, id := range ids {
			delete(lost, id)
		}
	}); err != nil {
		return err
	}
	return c.judge(ctx, moved, lost)
}

// unseen lists the jobs that have a payload or a ledger and are in no place, but
// perhaps in ready.
func (c *checker) unseen(ctx context.Context) (map[string]string, error) {
	lost := make(map[string]string)
	for _, key := range []string{c.q.keys.Jobs, c.q.keys.Ledger} {
		if err := c.scanHash(ctx, key, func(ids []string) error {
			l, err := c.look(ctx, "ids", slices.DeleteFunc(ids, func(id string) bool {
				_, seen := c.ready[maphash.String(c.seed, id)]
				return seen
			}))
			sums := l.sums
			for i, id := range l.ids {
				switch {
				case l.codes[i] == 'o':
					lost[id], sums = sums[0], sums[1:]
				case l.codes[i] == 'g' && key == c.q.keys.Ledger:
					lost[id] = ""
				}
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	return lost, nil
}

// readReady reads ready through from its tail. What is pushed meanwhile shifts the
// windows, so that one overlaps the last: only the first, fresh, ids of it are new.
func (c *checker) readReady(ctx context.Context, visit func(ids []string, codes string, fresh int)) error {
	last := "" // the one nearest to the head so far
	for end := -1; ; end -= MaxBatch {
		l, err := c.look(ctx, "ready", []string{strconv.Itoa(end - MaxBatch + 1), strconv.Itoa(end)})
		if err != nil || len(l.ids) == 0 {
			return err
		}
		fresh := len(l.ids)
		for i := range l.ids {
			if l.ids[i] == last {
				fresh = i // the place nearest to the tail, should there be several
			}
		}
		visit(l.ids, l.codes, fresh)
		last = l.ids[0]
		if len(l.ids) < MaxBatch {
			return nil
		}
	}
}

// looked is the answer of check_look.lua.
type looked struct {
	ids   []string
	codes string
	sums  []string
}

func (c *checker) look(ctx context.Context, what string, args []string) (looked, error) {
	if len(args) == 0 {
		return looked{}, nil
	}
	k := &c.q.keys
	all := []any{what}
	for _, a := range args {
		all = append(all, a)
	}
	res, err := c.q.run(ctx, checkLookScript, append([]string{k.Jobs, k.Ready, k.Delayed}, c.ownerKeys()...), all)
	if err != nil {
		return looked{}, err
	}
	r := readReply(res, 3)
	l := looked{ids: r.texts(), codes: r.text(), sums: r.texts()}
	if r.bad || len(l.codes) != len(l.ids) || strings.Trim(l.codes, ".xmog") != "" ||
		strings.Count(l.codes, "o") != len(l.sums) || what == "ids" && !slices.Equal(l.ids, args) {
		return looked{}, c.q.malformed("check", res)
	}
	return l, nil
}

// judge has suspects judged, and mended. moved is as check_mend.lua has it.
func (c *checker) judge(ctx context.Context, moved string, suspects map[string]string) error {
	waiting := slices.Sorted(maps.Keys(suspects))
	for len(waiting) > 0 {
		n, err := c.judgeAtOnce(ctx, moved)
		if err != nil {
			return err
		}
		ids := waiting[:min(n, len(waiting))]
		now, n, err := c.verdict(ctx, moved, ids, suspects)
		if err != nil {
			return err
		}
		if now == "owners" { // a worker came or went
			if err := c.list(ctx); err != nil {
				return err
			}
			continue
		}
		waiting = waiting[len(ids):]
		if moved = after(moved, n); moved != now {
			moved = "" // somebody else's moves are among them
		}
	}
	return nil
}

// verdict has some suspects judged at one instant. It returns moves after that and how
// many were mended, or "owners" if others own jobs than was thought.
func (c *checker) verdict(ctx context.Context, moved string, ids []string, suspects map[string]string) (now string, n int, err error) {
	k := &c.q.keys
	keys := []string{k.Jobs, k.Ready, k.Delayed, k.Ledger, k.Workers, k.Owners, k.Bell}
	args := []any{moved, len(c.owners)}
	for _, name := range c.owners {
		args = append(args, name)
	}
	for _, id := range ids {
		args = append(args, id, suspects[id])
	}
	answer, err := c.call(ctx, checkMendScript, append(keys, c.ownerKeys()...), args...)
	if err != nil || answer == "owners" {
		return answer, 0, err
	}
	now, codes, ok := strings.Cut(answer, ":")
	if !ok || !isMoves(now) {
		return "", 0, c.q.malformed("check", answer)
	}
	n, err = c.report("xoml", codes, ids)
	return now, n, err
}

// after is what moves is when nothing but n more was mended; empty stays empty.
func after(moved string, n int) string {
	sum, err := strconv.ParseInt(moved, 10, 64)
	if err != nil {
		return ""
	}
	return strconv.FormatInt(sum+int64(n), 10)
}

// judgeAtOnce says how many jobs one call may judge.
func (c *checker) judgeAtOnce(ctx context.Context, moved string) (int, error) {
	n := min(MaxBatch, ownerBudget/(len(c.owners)+1))
	now, err := c.moves(ctx)
	if err != nil {
		return 0, err
	}
	if moved == "" || moved != now {
		length, err := c.q.rdb.LLen(ctx, c.q.keys.Ready).Result()
		if err != nil {
			return 0, err
		}
		n = min(n, int(walkBudget/(length+1)))
	}
	return max(n, 1), nil
}

// moves says, as check_memo.lua does, how often jobs came back to ready.
func (c *checker) moves(ctx context.Context) (string, error) {
	answer, err := c.call(ctx, checkMovesScript, nil)
	if err == nil && !isMoves(answer) {
		err = c.q.malformed("check", answer)
	}
	return answer, err
}

// isMoves: a number, or nothing where the counters do not tell.
func isMoves(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return s == "" || err == nil && strconv.FormatInt(n, 10) == s
}
