package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/examples/sqlstore"
	"github.com/redrive-go/redrive/internal/redistest"
)

func TestMain(m *testing.M) {
	redistest.RegisterSubprocess("shop", shopProcess)
	redistest.Main(m)
}

const patience = 30 * time.Second

var charge = redrive.NewTask[string, string]("charge", redrive.TaskOptions{
	ResultTTL: time.Minute,
	Retry:     redrive.RetryPolicy{MaxRetries: 3, Backoff: redrive.Constant(time.Millisecond), Jitter: redrive.NoJitter},
})

// shop charges customers in one transaction with the mark.
type shop struct {
	db *sql.DB
	// at is called at each point where a process may die.
	at func(point string)
}

func openDB(path string) (*sql.DB, error) {
	return sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)")
}

func (s *shop) charge(ctx context.Context, job *redrive.Job[string]) (string, error) {
	s.at("start")
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `INSERT INTO charges (customer) VALUES (?)`, job.Args); err != nil {
		return "", err
	}
	s.at("effect")
	result := fmt.Sprintf("charged %s in attempt %d", job.Args, job.Starts)
	if err := sqlstore.Done(ctx, tx, result); err != nil {
		return "", err
	}
	s.at("mark")
	if err := tx.Commit(); err != nil {
		return "", err
	}
	s.at("commit")
	return result, nil
}

// worker returns a worker of the shop.
func (s *shop) worker(rdb redis.UniversalClient, prefix string) (*redrive.Worker, error) {
	if _, err := s.db.Exec(`CREATE TABLE IF NOT EXISTS charges (customer TEXT)`); err != nil {
		return nil, err
	}
	store, err := sqlstore.Open(context.Background(), s.db)
	if err != nil {
		return nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	mux := redrive.NewMux()
	charge.Handle(mux, s.charge, redrive.Idempotent(nil, redrive.IdempotencyOptions{
		Store: store, BusyDelay: 5 * time.Millisecond, Lease: time.Hour, Logger: quiet,
	}))
	return redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Prefix: prefix, Lease: time.Second, MaxCrashes: 9, Logger: quiet})
}

// shopProcess works until it is killed, which it does itself at the point DIE_AT.
func shopProcess() {
	db, err := openDB(os.Getenv("DB"))
	if err != nil {
		panic(err)
	}
	n, _ := strconv.Atoi(os.Getenv("REDIS_DB"))
	rdb := redis.NewClient(&redis.Options{Addr: os.Getenv("ADDR"), DB: n})
	s := &shop{db: db, at: func(point string) {
		if point == os.Getenv("DIE_AT") {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}}
	w, err := s.worker(rdb, os.Getenv("PREFIX"))
	if err != nil {
		panic(err)
	}
	_ = w.Run(context.Background())
}

// run starts a worker in this process.
func (s *shop) run(t *testing.T, rdb redis.UniversalClient, prefix string) {
	w, err := s.worker(rdb, prefix)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
}

func newShop(t *testing.T) *shop {
	db, err := openDB(t.TempDir() + "/shop.db")
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return &shop{db: db, at: func(string) {}}
}

func (s *shop) charges(t *testing.T, customer string) (n int) {
	require.NoError(t, s.db.QueryRow(`SELECT count(*) FROM charges WHERE customer = ?`, customer).Scan(&n))
	return n
}

// Wherever the process is killed, the effect is there once, and so is its result.
func TestACrashLeavesNoEffectWithoutItsMark(t *testing.T) {
	for point, attempt := range map[string]int{"start": 2, "effect": 2, "mark": 2, "commit": 1} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := redistest.Redis(t)
			path := t.TempDir() + "/shop.db"
			rdb := b.Client()
			client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix})
			require.NoError(t, err)
			receipt, err := charge.Enqueue(t.Context(), client, "ann", &redrive.EnqueueOptions{IdempotencyKey: "order-7"})
			require.NoError(t, err)
			p := redistest.StartSubprocess(t, "shop", "DB="+path, "ADDR="+b.Addr,
				fmt.Sprintf("REDIS_DB=%d", b.Options().DB), "PREFIX="+b.Prefix, "DIE_AT="+point)
			require.Error(t, p.Wait(), "it was killed")

			db, err := openDB(path)
			require.NoError(t, err)
			t.Cleanup(func() { db.Close() })
			s := &shop{db: db, at: func(string) {}}
			s.run(t, rdb, b.Prefix)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			result, err := receipt.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("charged ann in attempt %d", attempt), result)
			require.Equal(t, 1, s.charges(t, "ann"))
		})
	}
}

// A handler that fails after its commit has failed in vain: the effect is done.
func TestAFailureAfterTheCommitIsReplayedAsASuccess(t *testing.T) {
	b := redistest.Embedded(t)
	s := newShop(t)
	s.at = func(point string) {
		if point == "commit" {
			panic("after the commit")
		}
	}
	rdb := b.Client()
	s.run(t, rdb, b.Prefix)
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	receipt, err := charge.Enqueue(ctx, client, "ann", nil)
	require.NoError(t, err)
	result, err := receipt.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "charged ann in attempt 1", result)
	require.Equal(t, 1, s.charges(t, "ann"))
}

func TestJobsOfOneKeyChargeOnce(t *testing.T) {
	b := redistest.Embedded(t)
	s := newShop(t)
	rdb := b.Client()
	s.run(t, rdb, b.Prefix)
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const keys = 20
	receipts := make(map[string][]*redrive.Receipt[string])
	for i := range 5 * keys {
		customer := fmt.Sprint("customer-", i%keys)
		receipt, err := charge.Enqueue(ctx, client, customer, &redrive.EnqueueOptions{IdempotencyKey: customer})
		require.NoError(t, err)
		receipts[customer] = append(receipts[customer], receipt)
	}
	for customer, all := range receipts {
		for _, receipt := range all {
			result, err := receipt.Wait(ctx)
			require.NoError(t, err)
			require.Contains(t, result, "charged "+customer)
		}
		require.Equal(t, 1, s.charges(t, customer))
	}
	receipt, err := charge.Enqueue(ctx, client, "bob", &redrive.EnqueueOptions{IdempotencyKey: "customer-0"})
	require.NoError(t, err)
	_, err = receipt.Wait(ctx)
	var failed *redrive.FailedError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, redrive.ReasonKeyReused, failed.Reason)
	require.Zero(t, s.charges(t, "bob"))
}

// The contract of redrive.IdempotencyStore, each step made twice.
func TestStoreKeepsItsContract(t *testing.T) {
	ctx := t.Context()
	s := newShop(t)
	store, err := sqlstore.Open(ctx, s.db)
	require.NoError(t, err)
	base := redrive.IdempotencyClaim{
		Prefix: "p", Task: "charge", Key: "k", Owner: "q/a", Attempt: 10, Fingerprint: "f", Lease: time.Hour, TTL: time.Hour,
	}
	claim := func(c redrive.IdempotencyClaim) (redrive.IdempotencyRecord, error) {
		first, err := store.Claim(ctx, c)
		again, errAgain := store.Claim(ctx, c)
		require.Equal(t, first, again)
		require.Equal(t, fmt.Sprint(err), fmt.Sprint(errAgain))
		return first, err
	}
	twice := func(f func() error) error {
		err := f()
		require.Equal(t, err, f())
		return err
	}
	complete := func(c redrive.IdempotencyClaim) error {
		return twice(func() error {
			return store.Complete(ctx, c, redrive.IdempotencyRecord{State: redrive.IdempotencyDone, Result: []byte(c.Owner)})
		})
	}
	extend := func(c redrive.IdempotencyClaim) error { return twice(func() error { return store.Extend(ctx, c) }) }
	release := func(c redrive.IdempotencyClaim) error { return twice(func() error { return store.Release(ctx, c) }) }

	rec, err := claim(base)
	require.NoError(t, err)
	require.Equal(t, redrive.IdempotencyClaimed, rec.State)
	base.Fence = rec.Fence
	other := base
	other.Owner = "q/b"
	rec, err = claim(other)
	require.NoError(t, err)
	require.Equal(t, redrive.IdempotencyBusy, rec.State)
	other.Fingerprint = "g"
	_, err = claim(other)
	require.ErrorIs(t, err, redrive.ErrKeyReused)
	other.Fingerprint = "f"

	later := base
	later.Attempt = 11
	rec, err = claim(later)
	require.NoError(t, err)
	require.Greater(t, rec.Fence, base.Fence)
	later.Fence = rec.Fence
	_, err = claim(base)
	require.ErrorIs(t, err, redrive.ErrClaimLost)
	require.ErrorIs(t, extend(base), redrive.ErrClaimLost)
	require.ErrorIs(t, complete(base), redrive.ErrClaimLost)
	require.NoError(t, release(base))
	require.NoError(t, extend(later), "it is still there")
	require.NoError(t, release(later))
	require.ErrorIs(t, extend(later), redrive.ErrClaimLost)

	short := base
	short.Lease = time.Millisecond
	rec, err = claim(short)
	require.NoError(t, err)
	short.Fence = rec.Fence
	time.Sleep(10 * time.Millisecond)
	rec, err = claim(other)
	require.NoError(t, err)
	require.Equal(t, redrive.IdempotencyClaimed, rec.State)
	other.Fence = rec.Fence
	require.ErrorIs(t, complete(short), redrive.ErrClaimLost)
	require.NoError(t, complete(other))
	require.NoError(t, release(other))
	rec, err = claim(base)
	require.NoError(t, err)
	require.Equal(t, redrive.IdempotencyRecord{State: redrive.IdempotencyDone, Result: []byte("q/b")}, rec)

	// Done is for handlers alone.
	tx, err := s.db.Begin()
	require.NoError(t, err)
	require.ErrorContains(t, sqlstore.Done(ctx, tx, ""), "outside of redrive.Idempotent")
	require.NoError(t, tx.Rollback())

	gone := base
	gone.Key, gone.TTL, gone.Lease = "gone", time.Millisecond, time.Millisecond
	_, err = claim(gone)
	require.NoError(t, err)
	time.Sleep(10 * time.Millisecond)
	n, err := store.Sweep(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

// Claims that meet wait for each other.
func TestConcurrentClaimsHaveOneWinner(t *testing.T) {
	s := newShop(t)
	store, err := sqlstore.Open(t.Context(), s.db)
	require.NoError(t, err)
	var wg sync.WaitGroup
	var mu sync.Mutex
	states := make(map[redrive.IdempotencyState]int)
	var errs []error
	for i := range 20 {
		wg.Go(func() {
			rec, err := store.Claim(context.Background(), redrive.IdempotencyClaim{
				Task: "t", Key: "k", Owner: fmt.Sprint(i), Attempt: 1, Lease: time.Hour, TTL: time.Hour,
			})
			mu.Lock()
			defer mu.Unlock()
			states[rec.State]++
			errs = append(errs, err)
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, map[redrive.IdempotencyState]int{redrive.IdempotencyClaimed: 1, redrive.IdempotencyBusy: 19}, states)
}
