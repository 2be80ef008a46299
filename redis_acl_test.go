package redrive_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

// documentedACL returns the words of the rule that the docs print.
func documentedACL(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("docs/redis-setup.md")
	require.NoError(t, err)
	rules := regexp.MustCompile(`(?m)^ACL SETUSER .*$`).FindAllString(string(page), -1)
	require.Len(t, rules, 1)
	return strings.Fields(rules[0])
}

// TestTheACLRuleOfTheDocsIsTheLeast: the rule allows what scripts call, also on
// paths that no test takes, what is sent besides, and nothing else.
func TestTheACLRuleOfTheDocsIsTheLeast(t *testing.T) {
	t.Parallel()
	want := strings.Fields("eval evalsha blpop subscribe unsubscribe zrangebylex zscan wait ping hello auth select")
	files, err := filepath.Glob("internal/store/lua/*.lua")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	calls := regexp.MustCompile(`redis\.p?call\(\s*['"](\w+)['"]`)
	for _, file := range files {
		script, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range calls.FindAllSubmatch(script, -1) {
			want = append(want, strings.ToLower(string(m[1])))
		}
	}
	var allowed []string
	for _, word := range documentedACL(t) {
		if command, ok := strings.CutPrefix(word, "+"); ok {
			allowed = append(allowed, command)
		}
	}
	slices.Sort(want)
	require.ElementsMatch(t, slices.Compact(want), allowed)
}

// TestTheACLRuleOfTheDocsIsEnough runs the engine and the pillars as the user that
// the docs print, and sees that Redis denied nothing.
func TestTheACLRuleOfTheDocsIsEnough(t *testing.T) {
	t.Parallel()
	rule := documentedACL(t)
	// Redis 6.2 gives a new user all channels; the rule must hold there, too.
	server := redistest.StartServer(t, "--acl-pubsub-default", "allchannels")
	admin := server.Client()
	var args []any
	for _, word := range rule {
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

	// A worker that is cut off for good: another takes its job over.
	proxy := faultnet.New(t, server.Addr, 1)
	o := *rdb.Options()
	o.Dialer = proxy.Dialer()
	cut := redis.NewClient(&o)
	defer cut.Close()
	taken := make(chan struct{}, 1)
	blocking := redrive.NewMux()
	good.Handle(blocking, func(ctx context.Context, _ *redrive.Job[number]) (int, error) {
		taken <- struct{}{}
		<-ctx.Done()
		return 0, context.Cause(ctx)
	})
	crashing, err := redrive.NewWorker(cut, blocking, redrive.WorkerOptions{Lease: time.Second, Logger: quiet, ShutdownTimeout: 500 * time.Millisecond})
	require.NoError(t, err)
	crashCtx, crash := context.WithCancel(ctx)
	crashed := make(chan error, 1)
	go func() { crashed <- crashing.Run(crashCtx) }()
	orphan, err := good.Enqueue(ctx, client, number{9}, nil)
	require.NoError(t, err)
	receive(t, taken, "start")
	proxy.Down()
	crash()
	require.Error(t, receive(t, crashed, "end"), "it could not give its lease back")

	reaped := make(chan string, 10)
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Lease: time.Second, Logger: quiet, Trace: &redrive.WorkerTrace{
		JobReaped: func(_, id, _ string, _ int) { reaped <- id },
	}})
	require.NoError(t, err)
	wctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.Run(wctx) }()

	require.Equal(t, orphan.ID, receive(t, reaped, "reaping"))
	got, err := orphan.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, 9, got)
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
	id := ""
	for e, err := range letters.All(ctx, redrive.DeadLetterFilter{Task: "bad", Reason: redrive.ReasonPermanent}) {
		require.NoError(t, err)
		id = e.TaskID
	}
	n, err := letters.Requeue(ctx, id)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	receive(t, heard, "call")
	_, err = letters.Count(ctx, redrive.DeadLetterFilter{Task: "bad"})
	require.NoError(t, err)
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

	careful, err := redrive.NewClient(rdb, redrive.ClientOptions{Replicas: 1, ReplicaTimeout: time.Millisecond})
	require.NoError(t, err)
	lonely, err := good.Enqueue(ctx, careful, number{}, nil)
	var few *redrive.ReplicationError
	require.ErrorAs(t, err, &few)
	require.NoError(t, few.Err)
	// A payload is gone, a place, and the place of a dead letter: all scripts of a check.
	_, err = good.EnqueueMany(ctx, client, make([]number, 3), nil)
	require.NoError(t, err)
	require.NoError(t, admin.HDel(ctx, "redrive:{default}:jobs", lonely.ID).Err())
	require.NoError(t, admin.LPop(ctx, "redrive:{default}:ready").Err())
	require.NoError(t, admin.RPop(ctx, "redrive:{default}:ready").Err())
	require.NoError(t, admin.RPush(ctx, "redrive:{default}:ready", lonely.ID).Err())
	require.NoError(t, admin.HSet(ctx, "redrive:{default}:letters", "x", "{}").Err())
	for _, repair := range []bool{false, true} {
		report, err := client.Check(ctx, "default", repair)
		require.NoError(t, err)
		require.Len(t, report.Findings, 3, "%s", report)
	}

	log, err := admin.Do(ctx, "ACL", "LOG").Slice()
	require.NoError(t, err)
	require.Empty(t, log, "Redis denied something")
	require.ErrorContains(t, rdb.FlushAll(ctx).Err(), "NOPERM")
	require.ErrorContains(t, rdb.ConfigGet(ctx, "*").Err(), "NOPERM")
	require.ErrorContains(t, rdb.Get(ctx, "other:key").Err(), "NOPERM")
	require.ErrorContains(t, rdb.Do(ctx, "SUBSCRIBE", "other:channel").Err(), "NOPERM")
}
