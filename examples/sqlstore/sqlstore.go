// Package sqlstore keeps the records of [redrive.Idempotent] in the SQL database
// that holds the effects, so that a handler commits an effect and its mark in one
// transaction: there is no moment at which a crash leaves one without the other.
//
//	func (s *shop) charge(ctx context.Context, job *redrive.Job[Order]) (Receipt, error) {
//		tx, err := s.db.BeginTx(ctx, nil)
//		…
//		defer tx.Rollback()
//		_, err = tx.ExecContext(ctx, `INSERT INTO charges …`)
//		…
//		if err := sqlstore.Done(ctx, tx, receipt); err != nil {
//			return Receipt{}, err
//		}
//		return receipt, tx.Commit()
//	}
//
//	store, err := sqlstore.Open(ctx, db)
//	charge.Handle(mux, s.charge, redrive.Idempotent(nil, redrive.IdempotencyOptions{Store: store}))
//
// It is an example of a store, for SQLite, in a module of its own; the statements
// are plain enough to be carried over to another database.
package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redrive-go/redrive"
)

const schema = `CREATE TABLE IF NOT EXISTS effects (
	prefix TEXT, task TEXT, key TEXT,
	done INTEGER NOT NULL,       -- 1: the effect is done
	fingerprint TEXT NOT NULL,
	owner TEXT NOT NULL, attempt INTEGER NOT NULL, fence INTEGER NOT NULL,
	lease INTEGER NOT NULL,      -- when the claim lapses, ms
	expires INTEGER NOT NULL,    -- when the record is forgotten, ms
	result BLOB, no_result TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (prefix, task, key)
)`

// Store is a [redrive.IdempotencyStore].
type Store struct{ db *sql.DB }

// Open returns the store in db, and makes its table if there is none. Transactions
// of db must take the write lock when they begin (_txlock=immediate), or claims
// that meet fail instead of waiting.
func Open(ctx context.Context, db *sql.DB) (*Store, error) {
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, fmt.Errorf("sqlstore: make the table: %w", err)
	}
	return &Store{db: db}, nil
}

// Claim implements [redrive.IdempotencyStore].
func (s *Store) Claim(ctx context.Context, c redrive.IdempotencyClaim) (redrive.IdempotencyRecord, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return redrive.IdempotencyRecord{}, fmt.Errorf("sqlstore: claim: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // it is for the ways out that have an error already
	rec, err := claim(ctx, tx, c, time.Now())
	if err == nil {
		err = tx.Commit()
	}
	if err != nil {
		return redrive.IdempotencyRecord{}, fmt.Errorf("sqlstore: claim: %w", err)
	}
	return rec, nil
}

func claim(ctx context.Context, tx *sql.Tx, c redrive.IdempotencyClaim, now time.Time) (redrive.IdempotencyRecord, error) {
	var (
		old    redrive.IdempotencyClaim
		rec    redrive.IdempotencyRecord
		done   bool
		lapses int64
	)
	err := tx.QueryRowContext(ctx, `SELECT done, fingerprint, owner, attempt, fence, lease, result, no_result
		FROM effects WHERE prefix = ? AND task = ? AND key = ? AND expires > ?`, c.Prefix, c.Task, c.Key, now.UnixMilli()).
		Scan(&done, &old.Fingerprint, &old.Owner, &old.Attempt, &old.Fence, &lapses, &rec.Result, &rec.NoResult)
	there := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return rec, err
	}
	mine, live := there && !done && old.Owner == c.Owner, lapses >= now.UnixMilli()
	switch {
	case !there:
	case old.Fingerprint != c.Fingerprint && !mine:
		return rec, redrive.ErrKeyReused
	case done:
		rec.State = redrive.IdempotencyDone
		return rec, nil
	case mine && old.Attempt == c.Attempt: // the answer to the first call was lost
		return redrive.IdempotencyRecord{State: redrive.IdempotencyClaimed, Fence: old.Fence}, nil
	case live && !mine:
		return redrive.IdempotencyRecord{State: redrive.IdempotencyBusy}, nil
	case live && old.Attempt > c.Attempt:
		return rec, redrive.ErrClaimLost
	}
	fence := max(now.UnixMicro(), old.Fence+1)
	_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO effects
		(prefix, task, key, done, fingerprint, owner, attempt, fence, lease, expires) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?)`,
		c.Prefix, c.Task, c.Key, c.Fingerprint, c.Owner, c.Attempt, fence,
		now.Add(c.Lease).UnixMilli(), now.Add(c.Lease+c.TTL).UnixMilli())
	return redrive.IdempotencyRecord{State: redrive.IdempotencyClaimed, Fence: fence}, err
}

// held is the fence: the record is the claim's.
const held = ` WHERE prefix = ? AND task = ? AND key = ? AND owner = ? AND attempt = ? AND fence = ?`

// execer is a database or a transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// fenced changes the record of a claim, or returns [redrive.ErrClaimLost].
func fenced(ctx context.Context, e execer, op, statement string, c redrive.IdempotencyClaim, args ...any) error {
	res, err := e.ExecContext(ctx, statement, append(args, c.Prefix, c.Task, c.Key, c.Owner, c.Attempt, c.Fence)...)
	if err != nil {
		return fmt.Errorf("sqlstore: %s: %w", op, err)
	}
	switch n, err := res.RowsAffected(); {
	case err != nil:
		return fmt.Errorf("sqlstore: %s: %w", op, err)
	case n == 0:
		return redrive.ErrClaimLost
	}
	return nil
}

// Extend implements [redrive.IdempotencyStore].
func (s *Store) Extend(ctx context.Context, c redrive.IdempotencyClaim) error {
	now := time.Now()
	return fenced(ctx, s.db, "extend", `UPDATE effects SET lease = ?, expires = ?`+held+` AND done = 0`, c,
		now.Add(c.Lease).UnixMilli(), now.Add(c.Lease+c.TTL).UnixMilli())
}

// Complete implements [redrive.IdempotencyStore]. What [Done] has committed stays as it is.
func (s *Store) Complete(ctx context.Context, c redrive.IdempotencyClaim, r redrive.IdempotencyRecord) error {
	return complete(ctx, s.db, c, r)
}

// complete leaves a record that is done as it is, and counts it as a success.
func complete(ctx context.Context, e execer, c redrive.IdempotencyClaim, r redrive.IdempotencyRecord) error {
	return fenced(ctx, e, "complete", `UPDATE effects SET
		result = CASE done WHEN 0 THEN ? ELSE result END,
		no_result = CASE done WHEN 0 THEN ? ELSE no_result END,
		expires = CASE done WHEN 0 THEN ? ELSE expires END,
		done = 1`+held, c, r.Result, r.NoResult, time.Now().Add(c.TTL).UnixMilli())
}

// Release implements [redrive.IdempotencyStore]. A record that is done stays, even
// if the handler failed after its commit.
func (s *Store) Release(ctx context.Context, c redrive.IdempotencyClaim) error {
	err := fenced(ctx, s.db, "release", `DELETE FROM effects`+held+` AND done = 0`, c)
	if errors.Is(err, redrive.ErrClaimLost) {
		return nil
	}
	return err
}

// Done marks the effect of ctx's job as done, with its result, in the handler's
// transaction. It returns [redrive.ErrClaimLost] when another job has taken the
// claim over: roll back then, and return the error.
func Done[R any](ctx context.Context, tx *sql.Tx, result R) error {
	c, ok := redrive.IdempotencyClaimFrom(ctx)
	if !ok {
		return errors.New("sqlstore: Done outside of redrive.Idempotent")
	}
	b, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("sqlstore: encode the result: %w", err)
	}
	return complete(ctx, tx, c, redrive.IdempotencyRecord{State: redrive.IdempotencyDone, Result: b})
}

// Sweep deletes the records whose time has passed, and returns how many. Call it
// now and then; correctness does not depend on it.
func (s *Store) Sweep(ctx context.Context) (int64, error) {
	res, err := s.db.ExecContext(ctx, `DELETE FROM effects WHERE expires <= ?`, time.Now().UnixMilli())
	if err != nil {
		return 0, fmt.Errorf("sqlstore: sweep: %w", err)
	}
	return res.RowsAffected()
}
