package redrive_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

// quiet discards logs: what tests assert, the trace tells.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// patience bounds every wait of a test; none is a measure.
const patience = 30 * time.Second

// rig is a backend with a client on it.
type rig struct {
	t      testing.TB
	b      *redistest.Backend
	rdb    redis.UniversalClient
	client *redrive.Client
}

func newRig(t testing.TB, b *redistest.Backend) *rig {
	t.Helper()
	rdb := b.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix, Logger: quiet})
	require.NoError(t, err)
	return &rig{t: t, b: b, rdb: rdb, client: client}
}

// running is a worker that runs until stop, or until the test ends.
type running struct {
	t      testing.TB
	cancel context.CancelFunc
	once   sync.Once
	done   chan error
	err    error
}

func (r *rig) start(mux *redrive.Mux, opts redrive.WorkerOptions) *running {
	r.t.Helper()
	opts.Prefix = r.b.Prefix
	if opts.Logger == nil {
		opts.Logger = quiet
	}
	w, err := redrive.NewWorker(r.rdb, mux, opts)
	require.NoError(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	run := &running{t: r.t, cancel: cancel, done: make(chan error, 1)}
	go func() { run.done <- w.Run(ctx) }()
	r.t.Cleanup(func() { _ = run.stop() })
	return run
}

// stop ends the worker and returns what Run returned.
func (w *running) stop() error {
	w.once.Do(func() {
		w.cancel()
		w.err = <-w.done
	})
	return w.err
}

// stats reads the figures of a queue.
func (r *rig) stats(queue string) redrive.QueueStats {
	r.t.Helper()
	s, err := r.client.Stats(context.Background(), queue)
	require.NoError(r.t, err)
	return s
}

// eventually waits until the figures of the default queue satisfy ok.
func (r *rig) eventually(ok func(s redrive.QueueStats) bool, msg string) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok(r.stats(redrive.DefaultQueue)) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: %+v", msg, r.stats(redrive.DefaultQueue))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// drained waits until nothing waits, runs or is delayed in the default queue.
func (r *rig) drained() {
	r.t.Helper()
	r.eventually(func(s redrive.QueueStats) bool { return s.Ready+s.Active+s.Delayed == 0 }, "queue does not drain")
}

// letter reads a dead letter as any program would: as JSON from its hash.
func (r *rig) letter(queue, id string) map[string]any {
	r.t.Helper()
	raw, err := r.rdb.HGet(context.Background(), r.b.Prefix+":{"+queue+"}:letters", id).Bytes()
	require.NoError(r.t, err, "dead letter of %s", id)
	var m map[string]any
	require.NoError(r.t, json.Unmarshal(raw, &m))
	return m
}

// ctx returns a context that ends with the test's patience.
func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	r.t.Cleanup(cancel)
	return ctx
}

// receive returns the next value of c, or fails.
func receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %v", what, patience)
		panic("unreachable")
	}
}

// number is the argument of most test tasks.
type number struct{ N int }

// fast is a policy without long waits.
var fast = redrive.RetryPolicy{MaxRetries: 3, Backoff: redrive.Constant(time.Millisecond), Jitter: redrive.NoJitter}
