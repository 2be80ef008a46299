package redrive_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// TestI3_AnOutageLongerThanTheLeaseCancelsAndPutsBackUncounted cuts a worker off for
// longer than its lease while a handler runs. The handler is told; its error is the
// outage's and not the job's; the job runs again, with no counter moved.
func TestI3_AnOutageLongerThanTheLeaseCancelsAndPutsBackUncounted(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute, Retry: fast})
		mux := redrive.NewMux()
		began, causes := make(chan redrive.Message, 2), make(chan error, 2)
		task.Handle(mux, func(ctx context.Context, j *redrive.Job[number]) (int, error) {
			began <- *j.Message
			if len(causes) > 0 || j.Args.N == 0 {
				return 1, nil
			}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return 0, ctx.Err()
		})
		r.start(mux, redrive.WorkerOptions{Lease: time.Second})
		receipt, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		receive(t, began, "start")
		proxy.Blackhole()
		require.ErrorIs(t, receive(t, causes, "cancellation"), redrive.ErrLeaseLost)
		causes <- nil // the next attempt succeeds
		proxy.Heal()
		again := receive(t, began, "second start")
		require.Equal(t, receipt.ID, again.ID)
		require.Zero(t, again.Retries+again.Crashes+again.Interrupts+again.Snoozes)
		got, err := receipt.Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, 1, got)
	})
}

// TestI3_OutageGrace stops a server for longer than the lease while two workers run
// jobs that pay no heed, and lets one of them back in later than the other: that one
// must not take the jobs of the other.
func TestI3_OutageGrace(t *testing.T) {
	t.Parallel()
	server := redistest.StartServer(t)
	proxy := faultnet.New(t, server.Addr, 1)
	slow := redis.NewClient(&redis.Options{Addr: proxy.Addr(), MaxRetries: -1})
	defer slow.Close()
	client, err := redrive.NewClient(server.Client(), redrive.ClientOptions{})
	require.NoError(t, err)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	mux := redrive.NewMux()
	began, finish := make(chan struct{}, 10), make(chan struct{})
	var runs, reaped atomic.Int32
	task.Handle(mux, redrive.NoResult(func(context.Context, *redrive.Job[number]) error {
		runs.Add(1)
		began <- struct{}{}
		<-finish
		return nil
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	for _, rdb := range []redis.UniversalClient{server.Client(), slow} {
		w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Lease: time.Second, Concurrency: 2, Logger: quiet, Trace: &redrive.WorkerTrace{
			JobReaped: func(string, string, string, int) { reaped.Add(1) },
		}})
		require.NoError(t, err)
		go func() { done <- w.Run(ctx) }()
	}
	_, err = task.EnqueueMany(ctx, client, make([]number, 4), nil)
	require.NoError(t, err)
	for range 4 {
		receive(t, began, "start")
	}
	proxy.Down()
	server.Pause()
	time.Sleep(2 * time.Second) // both leases lapse
	server.Resume()
	time.Sleep(400 * time.Millisecond) // the first worker is back
	proxy.Up()
	time.Sleep(1500 * time.Millisecond) // more than a lease: whoever would reap has
	close(finish)
	require.Eventually(t, func() bool {
		s, err := client.Stats(context.Background(), "default")
		return err == nil && s.Succeeded == 4
	}, patience, 5*time.Millisecond)
	require.Zero(t, reaped.Load())
	require.EqualValues(t, 4, runs.Load())
	cancel()
	require.NoError(t, errors.Join(<-done, <-done))
}

// TestI9_BrokenConnectionsDoNotPutOffTheRecovery breaks a worker's connection at
// every other beat: it is in touch all the same, and takes over what a dead worker
// left.
func TestI9_BrokenConnectionsDoNotPutOffTheRecovery(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		const lease = time.Second
		r, proxy := faulty(t, b, 1)
		beat, err := os.ReadFile("internal/store/lua/beat.lua")
		require.NoError(t, err)
		isBeat, n := faultnet.Scripts(redis.NewScript(string(beat)).Hash()), 0
		broken := proxy.DropReply(func(cmd []string) bool {
			if !isBeat(cmd) {
				return false
			}
			n++
			return n%2 == 1
		}, 0)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		receipt, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		dead := store.Open(b.Client(), b.Prefix, redrive.DefaultQueue)
		_, err = dead.Beat(r.ctx(), "dead", lease)
		require.NoError(t, err)
		claimed, err := dead.Claim(r.ctx(), store.ClaimCall{Worker: "dead", Call: 1, N: 1})
		require.NoError(t, err)
		require.Len(t, claimed.Jobs, 1)

		mux := redrive.NewMux()
		began := make(chan string, 1)
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
			began <- j.ID
			return nil
		}))
		start := time.Now()
		r.start(mux, redrive.WorkerOptions{Lease: lease})
		require.Equal(t, receipt.ID, receive(t, began, "recovery"))
		require.Less(t, time.Since(start), 2*lease+time.Second)
		require.GreaterOrEqual(t, broken.Hits(), 2, "beats were broken")
	})
}

// TestI4_AReapThatComesTooLateIsNotReported holds a reap up until the worker that was
// thought dead has ended its job: the reap is refused, and the trace does not say
// that it took place.
func TestI4_AReapThatComesTooLateIsNotReported(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		late := proxy.DelayRequest(faultnet.Scripts(store.Scripts()["putback"].Hash()), 1, 500*time.Millisecond)
		_, err := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{}).Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		zombie := store.Open(b.Client(), b.Prefix, redrive.DefaultQueue)
		_, err = zombie.Beat(r.ctx(), "zombie", time.Second)
		require.NoError(t, err)
		claimed, err := zombie.Claim(r.ctx(), store.ClaimCall{Worker: "zombie", Call: 1, N: 1})
		require.NoError(t, err)
		require.Len(t, claimed.Jobs, 1)
		job := claimed.Jobs[0]

		var reaped atomic.Int32
		r.start(redrive.NewMux(), redrive.WorkerOptions{Lease: time.Second, Trace: &redrive.WorkerTrace{
			JobReaped: func(string, string, string, int) { reaped.Add(1) },
		}})
		receive(t, late.Fired(), "reap")
		settled, err := zombie.Finish(r.ctx(), store.Settler{Worker: "zombie", Call: "1"}, store.Succeeded,
			[]store.Done{{Owned: store.Owned{ID: job.ID, Token: job.Token}}})
		require.NoError(t, err)
		require.Empty(t, settled.Refused)
		r.eventually(func(s redrive.QueueStats) bool { return s.Workers == 1 }, "the zombie is not forgotten")
		require.Zero(t, reaped.Load())
		require.Zero(t, r.stats(redrive.DefaultQueue).Crashed)
	})
}

// gobCodec is a codec whose output is not JSON.
type gobCodec struct{}

func (gobCodec) Marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	err := gob.NewEncoder(&b).Encode(v)
	return b.Bytes(), err
}

func (gobCodec) Unmarshal(data []byte, v any) error {
	return gob.NewDecoder(bytes.NewReader(data)).Decode(v)
}

func TestI2_PayloadsArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		plain := redrive.NewTask[map[string]any, map[string]any]("json", redrive.TaskOptions{ResultTTL: time.Minute})
		binary := redrive.NewTask[[]byte, []byte]("gob", redrive.TaskOptions{ResultTTL: time.Minute, Codec: gobCodec{}})
		mux := redrive.NewMux()
		plain.Handle(mux, func(_ context.Context, j *redrive.Job[map[string]any]) (map[string]any, error) { return j.Args, nil })
		binary.Handle(mux, func(_ context.Context, j *redrive.Job[[]byte]) ([]byte, error) { return j.Args, nil })
		r.start(mux, redrive.WorkerOptions{})
		for _, args := range []map[string]any{
			nil, {}, {"a": "ä\u2028<&>\"\\\x00 \U0001F600"}, {"n": -1.5e300, "deep": []any{[]any{map[string]any{"x": nil}}}},
			{strings.Repeat("k", 1000): strings.Repeat("v", 100_000)},
		} {
			receipt, err := plain.Enqueue(r.ctx(), r.client, args, nil)
			require.NoError(t, err)
			got, err := receipt.Wait(r.ctx())
			require.NoError(t, err)
			require.Equal(t, args, got)
		}
		for _, args := range [][]byte{{0}, []byte("plain"), bytes.Repeat([]byte{0xff, 0, '\n'}, 10_000)} {
			receipt, err := binary.Enqueue(r.ctx(), r.client, args, nil)
			require.NoError(t, err)
			got, err := receipt.Wait(r.ctx())
			require.NoError(t, err)
			require.Equal(t, args, got)
		}
	})
}

// TestI1_AMasterThatBecomesAReplicaIsLeft turns the server that a worker talks to
// into a replica of another, behind an address that moves along: an old connection
// must not go on answering that there is nothing to do.
func TestI1_AMasterThatBecomesAReplicaIsLeft(t *testing.T) {
	t.Parallel()
	old, next := redistest.StartServer(t), redistest.StartServer(t)
	var mu sync.Mutex
	addr := old.Addr
	rdb := redis.NewClient(&redis.Options{Addr: "moves", Dialer: moving(&mu, &addr)})
	defer rdb.Close()
	task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute})
	mux := redrive.NewMux()
	task.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) { return j.Args.N, nil })
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: quiet})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	run := func(c *redrive.Client) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		receipt, err := task.Enqueue(ctx, c, number{3}, nil)
		require.NoError(t, err)
		got, err := receipt.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, got)
	}
	run(client)

	host, port, _ := strings.Cut(next.Addr, ":")
	mu.Lock()
	addr = next.Addr
	mu.Unlock()
	require.NoError(t, old.Client().Do(ctx, "REPLICAOF", host, port).Err())
	begin := time.Now()
	fresh, err := redrive.NewClient(next.Client(), redrive.ClientOptions{})
	require.NoError(t, err)
	run(fresh)
	// A third of the default lease is ten seconds: the beat is not what found it.
	require.Less(t, time.Since(begin), 5*time.Second)
	cancel()
	require.NoError(t, <-done)
}
