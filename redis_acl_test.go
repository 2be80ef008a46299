package redrive_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// TestTheACLRuleOfTheDocsIsEnough runs the engine and the pillars as the user that
// the docs print, and sees that Redis denied nothing.
func TestTheACLRuleOfTheDocsIsEnough(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/redis-setup.md")
	require.NoError(t, err)
	rule := regexp.MustCompile(`(?m)^ACL SETUSER .*$`).Find(page)
	require.NotEmpty(t, rule)
	server := redistest.StartServer(t)
	admin := server.Client()
	var args []any
	for _, word := range strings.Fields(string(rule)) {
		args = append(args, word)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, admin.Do(ctx, args...).Err())
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "redrive", Password: "secret", DisableIdentity: true})
	defer rdb.Close()

	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	opts := redrive.TaskOptions{ResultTTL: time.Minute, Retry: fast}
	good := redrive.NewTask[number, int]("good", opts)
	bad := redrive.NewTask[number, int]("bad", opts)
	heard := make(chan string, 10)
	mux := redrive.NewMux()
	mux.Use(redrive.DeadLetter(redrive.DeadLetterOptions{MaxCount: 1, OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error {
		heard <- e.TaskID
		return nil
	}}))
	good.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) {
		switch {
		case j.Args.N == 1 && j.Starts == 1:
			return 0, errors.New("once")
		case j.Args.N == 2 && j.Starts == 1:
			return 0, redrive.Snooze(time.Millisecond)
		case j.Args.N == 3:
			time.Sleep(500 * time.Millisecond) // long enough for renewals
		}
		return j.Args.N, nil
	}, redrive.Idempotent(rdb, redrive.IdempotencyOptions{Lease: time.Second}), redrive.Singleton(rdb, redrive.SingletonOptions{
		TTL: time.Second, OnConflict: redrive.Later(time.Millisecond),
	}))
	bad.Handle(mux, func(context.Context, *redrive.Job[number]) (int, error) { return 0, redrive.Permanent(errors.New("x")) })
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Lease: time.Second, Logger: quiet})
	require.NoError(t, err)
	wctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(wctx) }()

	require.NoError(t, client.Pause(ctx, "default"))
	require.NoError(t, client.Resume(ctx, "default"))
	for n := range 4 {
		receipt, err := good.Enqueue(ctx, client, number{n}, &redrive.EnqueueOptions{Delay: time.Duration(n) * time.Millisecond})
		require.NoError(t, err)
		got, err := receipt.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, n, got)
	}
	letters := client.DeadLetters("default")
	for range 3 {
		receipt, err := bad.Enqueue(ctx, client, number{}, nil)
		require.NoError(t, err)
		require.Equal(t, receipt.ID, receive(t, heard, "call"))
		_, err = letters.Counts(ctx)
		require.NoError(t, err)
	}
	for _, err := range letters.All(ctx, redrive.DeadLetterFilter{}) {
		require.NoError(t, err)
	}
	_, err = letters.Redrive(ctx, redrive.RedriveOptions{})
	require.NoError(t, err)
	receive(t, heard, "call")
	reviewed, err := letters.Review(ctx, "bad", 1, time.Minute)
	require.NoError(t, err)
	for _, r := range reviewed {
		require.NoError(t, r.Release(ctx))
	}
	_, err = letters.Drain(ctx, "bad", 10)
	require.NoError(t, err)
	_, err = letters.Purge(ctx, redrive.DeadLetterFilter{})
	require.NoError(t, err)
	locker, err := redrive.NewLocker(rdb, redrive.LockerOptions{TTL: time.Second})
	require.NoError(t, err)
	require.NoError(t, locker.Do(ctx, "k", func(context.Context) error { time.Sleep(500 * time.Millisecond); return nil }))
	time.Sleep(1100 * time.Millisecond) // the periodic work of a lease
	_, err = client.Stats(ctx, "default")
	require.NoError(t, err)
	stop()
	require.NoError(t, <-done)

	log, err := admin.Do(ctx, "ACL", "LOG").Slice()
	require.NoError(t, err)
	require.Empty(t, log, "Redis denied something")
	require.ErrorContains(t, rdb.FlushAll(ctx).Err(), "NOPERM")
	require.ErrorContains(t, rdb.Get(ctx, "other:key").Err(), "NOPERM")
}
