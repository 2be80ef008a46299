package store

import "context"

// The calls of a check, one by one, and what they take from the answer.

// CheckIDs lists the fields of a hash.
func (q *Queue) CheckIDs(ctx context.Context) (all []string, err error) {
	err = q.checker(Check{}).scanHash(ctx, q.keys.Jobs, func(ids []string) error {
		all = append(all, ids...)
		return nil
	})
	return all, err
}

// CheckLook looks at ids, or at a window of ready.
func (q *Queue) CheckLook(ctx context.Context, what string, args ...string) (ids []string, codes string, sums []string, err error) {
	l, err := q.checker(Check{}).look(ctx, what, args)
	return l.ids, l.codes, l.sums, err
}

// CheckMoves reads the counters of what came back to ready.
func (q *Queue) CheckMoves(ctx context.Context) (string, error) {
	return q.checker(Check{By: NewCaller("c")}).moves(ctx)
}

// CheckVerdict has suspects judged.
func (q *Queue) CheckVerdict(ctx context.Context, found func(Damage, string, bool), ids ...string) (moved string, mended int, err error) {
	return q.checker(Check{By: NewCaller("c"), Mend: true, Found: found}).verdict(ctx, "", ids, map[string]string{})
}
