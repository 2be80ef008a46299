package redrive_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

// TestBadInputIsRefusedWithAClearErrorBeforeRedisIsTouched uses a client that
// cannot reach any Redis: whatever got as far would say so.
func TestBadInputIsRefusedWithAClearErrorBeforeRedisIsTouched(t *testing.T) {
	t.Parallel()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", DialerRetries: 1})
	defer rdb.Close()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{MaxPayload: 100})
	require.NoError(t, err)
	ctx := context.Background()
	number := redrive.NewTask[*number, redrive.None]("t", redrive.TaskOptions{})
	text := redrive.NewTask[string, redrive.None]("t", redrive.TaskOptions{})
	float := redrive.NewTask[float64, redrive.None]("t", redrive.TaskOptions{})
	fn := redrive.NewTask[func(), redrive.None]("t", redrive.TaskOptions{})
	long := strings.Repeat("x", 129)
	opts := func(o redrive.EnqueueOptions) error {
		_, err := text.Enqueue(ctx, client, "a", &o)
		return err
	}
	refused := func(_ any, err error) error { return err }
	cases := map[string]struct {
		err  error
		is   error
		text string
	}{
		"no client":          {refused(text.Enqueue(ctx, nil, "a", nil)), nil, "client is nil"},
		"nil arguments":      {refused(number.Enqueue(ctx, client, nil, nil)), redrive.ErrInvalidOptions, "nil"},
		"NaN":                {refused(float.Enqueue(ctx, client, math.NaN(), nil)), nil, "NaN"},
		"a function":         {refused(fn.Enqueue(ctx, client, func() {}, nil)), nil, "encode the arguments"},
		"too large":          {refused(text.Enqueue(ctx, client, long, nil)), redrive.ErrPayloadTooLarge, "MaxPayload is 100"},
		"negative delay":     {opts(redrive.EnqueueOptions{Delay: -1}), redrive.ErrInvalidOptions, "EnqueueOptions.Delay"},
		"delay and time":     {opts(redrive.EnqueueOptions{Delay: 1, RunAt: time.Now()}), redrive.ErrInvalidOptions, "both set"},
		"bad id":             {opts(redrive.EnqueueOptions{ID: "a b"}), redrive.ErrInvalidOptions, "EnqueueOptions.ID"},
		"braces":             {opts(redrive.EnqueueOptions{Queue: "a{b}"}), redrive.ErrInvalidOptions, "EnqueueOptions.Queue"},
		"long queue":         {opts(redrive.EnqueueOptions{Queue: long}), redrive.ErrInvalidOptions, "128"},
		"long key":           {opts(redrive.EnqueueOptions{IdempotencyKey: strings.Repeat("x", 513)}), redrive.ErrInvalidOptions, "IdempotencyKey"},
		"one id for two":     {refused(text.EnqueueMany(ctx, client, []string{"a", "b"}, &redrive.EnqueueOptions{ID: "x"})), redrive.ErrInvalidOptions, "ID names one job"},
		"one key for two":    {refused(text.EnqueueMany(ctx, client, []string{"a", "b"}, &redrive.EnqueueOptions{IdempotencyKey: "x"})), redrive.ErrInvalidOptions, "singly"},
		"one of many is bad": {refused(text.EnqueueMany(ctx, client, []string{"a", long}, nil)), redrive.ErrPayloadTooLarge, ""},
		"stats of no queue":  {refused(client.Stats(ctx, "")), nil, "queue name is empty"},
		"pause of no queue":  {client.Pause(ctx, "{}"), nil, "queue name"},
	}
	for name, c := range cases {
		require.Error(t, c.err, name)
		require.ErrorContains(t, c.err, c.text, name)
		if c.is != nil {
			require.ErrorIs(t, c.err, c.is, name)
		}
		require.NotErrorIs(t, c.err, redrive.ErrUnavailable, name)
	}
	receipts, err := text.EnqueueMany(ctx, client, nil, nil)
	require.NoError(t, err)
	require.Empty(t, receipts)

	_, err = redrive.NewClient(nil, redrive.ClientOptions{Prefix: "a b", MaxPayload: -1, EnqueueTimeout: -1})
	for _, field := range []string{"rdb is nil", "Prefix", "MaxPayload", "EnqueueTimeout"} {
		require.ErrorContains(t, err, field)
	}
	_, err = redrive.NewWorker(nil, nil, redrive.WorkerOptions{
		Prefix: "{", Concurrency: -1, Lease: time.Millisecond, ShutdownTimeout: -1, MaxCrashes: -1, MaxResult: -1, UnknownTaskAge: -1, Name: "a b",
		Queues: []redrive.Queue{{Name: "a"}, {Name: "a"}, {Name: ""}, {Name: "b", Weight: -1}},
	})
	for _, field := range []string{"rdb is nil", "mux is nil", "Prefix", "Concurrency", "Lease", "ShutdownTimeout", "MaxCrashes",
		"MaxResult", "UnknownTaskAge", "Name", "listed twice", "Queues[2]", "Queues[3]"} {
		require.ErrorContains(t, err, field)
	}
	for name, f := range map[string]func(){
		"bad name":          func() { redrive.NewTask[string, int]("", redrive.TaskOptions{}) },
		"TaskOptions.Queue": func() { redrive.NewTask[string, int]("t", redrive.TaskOptions{Queue: "{"}) },
		"nil handler":       func() { redrive.NewMux().Handle("t", nil) },
		"bad task name":     func() { redrive.NewMux().Handle("a b", redrive.HandlerFunc(nil)) },
		"twice": func() {
			m := redrive.NewMux()
			text.Handle(m, redrive.NoResult(func(context.Context, *redrive.Job[string]) error { return nil }))
			text.Handle(m.With(), redrive.NoResult(func(context.Context, *redrive.Job[string]) error { return nil }))
		},
		"late use": func() {
			m := redrive.NewMux()
			m.With()
			m.Use(redrive.Retry(redrive.RetryPolicy{}))
		},
	} {
		require.Panics(t, f, name)
	}
}

func TestAnUnreachableRedisIsSaidSoAndNothingIsAmbiguous(t *testing.T) {
	t.Parallel()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", DialerRetries: 1})
	defer rdb.Close()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{EnqueueTimeout: 100 * time.Millisecond})
	require.NoError(t, err)
	task := redrive.NewTask[string, redrive.None]("t", redrive.TaskOptions{})
	_, err = task.Enqueue(context.Background(), client, "a", nil)
	require.ErrorIs(t, err, redrive.ErrUnavailable)
	var unknown *redrive.AmbiguousError
	require.False(t, errors.As(err, &unknown), "the job never left")

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = task.Enqueue(ctx, client, "a", nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAnIDIsTakenWhileItsJobIsThere(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
		mine := &redrive.EnqueueOptions{ID: "order-1"}
		for i := range 3 { // waiting
			receipt, err := task.Enqueue(r.ctx(), r.client, number{i}, mine)
			require.NoError(t, err)
			require.Equal(t, "order-1", receipt.ID)
			require.Equal(t, i > 0, receipt.Duplicate)
		}
		require.EqualValues(t, 1, r.stats("default").Ready)
		mux := redrive.NewMux()
		running, finish := make(chan int, 5), make(chan error)
		task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
			running <- j.Args.N
			return <-finish
		}))
		r.start(mux, redrive.WorkerOptions{})
		require.Zero(t, receive(t, running, "start"), "the first enqueue's payload (I2)")
		receipt, err := task.Enqueue(r.ctx(), r.client, number{5}, mine) // running
		require.NoError(t, err)
		require.True(t, receipt.Duplicate)
		finish <- redrive.Permanent(errors.New("x"))
		r.eventually(func(s redrive.QueueStats) bool { return s.Dead == 1 }, "not dead")
		receipt, err = task.Enqueue(r.ctx(), r.client, number{6}, mine) // a dead letter
		require.NoError(t, err)
		require.True(t, receipt.Duplicate)
		require.Zero(t, r.stats("default").Ready)
	})
}

func TestEnqueueManyIsOneCallPer500Jobs(t *testing.T) {
	server := redistest.StartServer(t)
	rdb := server.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	_, err = task.Enqueue(context.Background(), client, number{}, nil) // loads the script
	require.NoError(t, err)
	before := server.CommandCount("evalsha", "eval")
	_, err = task.EnqueueMany(context.Background(), client, make([]number, 1200), nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, server.CommandCount("evalsha", "eval")-before)
}

func TestCallsOfManyGoroutinesShareRoundTrips(t *testing.T) {
	server := redistest.StartServer(t)
	rdb := server.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	before := server.CommandCount("evalsha", "eval")
	var wg sync.WaitGroup
	ids := make([]map[string]bool, 50)
	for g := range ids {
		ids[g] = make(map[string]bool)
		wg.Go(func() {
			for i := range 40 {
				receipt, err := task.Enqueue(context.Background(), client, number{i}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				ids[g][receipt.ID] = true
			}
		})
	}
	wg.Wait()
	stats, err := client.Stats(context.Background(), "default")
	require.NoError(t, err)
	require.EqualValues(t, 2000, stats.Ready)
	require.Less(t, server.CommandCount("evalsha", "eval")-before, int64(1000))
}

func TestAFullRedisIsBackpressureAndDrains(t *testing.T) {
	server := redistest.StartServer(t, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
	rdb := server.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	ctx := context.Background()
	task := redrive.NewTask[string, redrive.None]("t", redrive.TaskOptions{Retry: fast})
	payload := strings.Repeat("x", 10_000)
	accepted := 0
	for {
		if _, err = task.Enqueue(ctx, client, payload, nil); err != nil {
			break
		}
		accepted++
		require.Less(t, accepted, 10_000, "never full")
	}
	require.ErrorIs(t, err, redrive.ErrBackpressure)
	stats, err := client.Stats(ctx, "default")
	require.NoError(t, err)
	require.EqualValues(t, accepted, stats.Ready, "a refused enqueue writes nothing")

	mux := redrive.NewMux()
	var once sync.Map
	task.Handle(mux, redrive.NoResult(func(_ context.Context, j *redrive.Job[string]) error {
		if _, again := once.LoadOrStore(j.ID, true); !again {
			return errors.New("once") // the failure path is legal, too
		}
		return nil
	}))
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: quiet})
	require.NoError(t, err)
	wctx, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- w.Run(wctx) }()
	require.Eventually(t, func() bool {
		s, err := client.Stats(ctx, "default")
		return err == nil && s.Succeeded == int64(accepted)
	}, patience, 5*time.Millisecond)
	_, err = task.Enqueue(ctx, client, payload, nil)
	require.NoError(t, err, "there is room again")
	cancel()
	require.NoError(t, <-done)
}

// faulty returns a rig whose clients talk to the backend through a proxy.
func faulty(t *testing.T, b *redistest.Backend, seed uint64) (*rig, *faultnet.Proxy) {
	t.Helper()
	o := b.Options()
	var proxy *faultnet.Proxy
	if b.Real() {
		proxy = faultnet.New(t, b.Addr, seed)
	} else {
		proxy = faultnet.NewDialer(t, o.Dialer, seed)
	}
	o.Dialer = proxy.Dialer()
	o.MaxRetries = -1
	rdb := redis.NewClient(o)
	t.Cleanup(func() { _ = rdb.Close() })
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix, Logger: quiet})
	require.NoError(t, err)
	return &rig{t: t, b: b, rdb: rdb, client: client}, proxy
}

// TestI6_I7_EveryScriptsReplyIsLost loses the reply of the k-th script call, for
// every k of a run that enqueues, fails, retries, succeeds and buries: the effect
// is that of one call.
func TestI6_I7_EveryScriptsReplyIsLost(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		task := redrive.NewTask[number, int]("t", redrive.TaskOptions{Retry: fast, ResultTTL: time.Minute})
		mux := redrive.NewMux()
		var mu sync.Mutex
		runs := make(map[string]int)
		task.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) {
			mu.Lock()
			runs[j.ID]++
			mu.Unlock()
			switch {
			case j.Args.N == 0:
				return 0, redrive.Permanent(errors.New("x"))
			case j.Args.N == 1 && j.Starts == 1:
				return 0, errors.New("once")
			case j.Args.N == 2 && j.Starts == 1:
				return 0, redrive.Snooze(time.Millisecond)
			}
			return j.Args.N, nil
		})
		var lost int64
		for k := 1; k <= 12; k++ {
			rule := proxy.DropReply(faultnet.Commands("evalsha", "eval"), k)
			w := r.start(mux, redrive.WorkerOptions{Lease: time.Second})
			want := map[string]int{}
			for n := range 4 {
				receipt, err := task.Enqueue(r.ctx(), r.client, number{n}, nil)
				require.NoError(t, err, "call %d", k)
				want[receipt.ID] = 1
				if n == 1 || n == 2 {
					want[receipt.ID] = 2
				}
				got, err := receipt.Wait(r.ctx())
				if n == 0 {
					require.Error(t, err)
				} else {
					require.NoError(t, err, "call %d", k)
					require.Equal(t, n, got)
				}
			}
			r.drained()
			require.NoError(t, w.stop())
			if rule.Hits() > 0 {
				lost++
			}
			rule.Remove()
			mu.Lock()
			for id, n := range want {
				require.Equal(t, n, runs[id], "call %d, job %s", k, id)
			}
			mu.Unlock()
			s := r.stats("default")
			require.EqualValues(t, 4*k, s.Enqueued)
			require.EqualValues(t, 3*k, s.Succeeded)
			require.EqualValues(t, k, s.Died)
			require.EqualValues(t, k, s.Retried)
			require.EqualValues(t, k, s.Snoozed)
			require.Zero(t, s.Crashed+s.Active)
			require.Zero(t, s.Released, "a claim sent again did not get its jobs: they had to be put back")
		}
		require.GreaterOrEqual(t, lost, int64(10), "hardly any reply was lost")
	})
}

// TestI7_AClaimNobodyHeardOfIsPutBack gives a worker a job behind its back, as a
// claim does whose answer is lost for good.
func TestI7_AClaimNobodyHeardOfIsPutBack(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute})
		mux := redrive.NewMux()
		task.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) { return j.Starts, nil })
		r.start(mux, redrive.WorkerOptions{Lease: time.Second})
		base := r.b.Prefix + ":{default}:"
		var workers []string
		require.Eventually(t, func() bool {
			workers = r.rdb.ZRange(r.ctx(), base+"workers", 0, -1).Val()
			return len(workers) == 1
		}, patience, time.Millisecond)
		_, err := r.rdb.TxPipelined(r.ctx(), func(p redis.Pipeliner) error {
			p.HSet(r.ctx(), base+"jobs", "ghost", `{"v":1,"task":"t","args":{}}`)
			p.HSet(r.ctx(), base+"w:"+workers[0], "ghost", "17")
			return nil
		})
		require.NoError(t, err)
		got, err := task.Receipt(r.client, "ghost").Wait(r.ctx())
		require.NoError(t, err)
		require.Equal(t, 1, got)
	})
}

func TestWaitAnswersForJobsWithoutAResult(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		task := redrive.NewTask[number, int]("t", redrive.TaskOptions{})
		mux := redrive.NewMux()
		task.Handle(mux, func(context.Context, *redrive.Job[number]) (int, error) { return 1, nil })
		receipt, err := task.Enqueue(r.ctx(), r.client, number{1}, nil)
		require.NoError(t, err)
		_, done, err := receipt.Poll(r.ctx())
		require.NoError(t, err)
		require.False(t, done)
		short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		_, err = receipt.Wait(short)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		r.start(mux, redrive.WorkerOptions{})
		_, err = receipt.Wait(r.ctx())
		require.ErrorIs(t, err, redrive.ErrNoResult)
	})
}

func TestWaitIsToldAndDoesNotPoll(t *testing.T) {
	server := redistest.StartServer(t)
	rdb := server.Client()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	require.NoError(t, err)
	task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute})
	mux := redrive.NewMux()
	finish := make(chan struct{})
	task.Handle(mux, func(context.Context, *redrive.Job[number]) (int, error) { <-finish; return 1, nil })
	w, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: quiet})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	receipt, err := task.Enqueue(ctx, client, number{}, nil)
	require.NoError(t, err)
	answered := make(chan time.Time)
	go func() {
		_, err := receipt.Wait(ctx)
		if err != nil {
			t.Error(err)
		}
		answered <- time.Now()
	}()
	time.Sleep(1200 * time.Millisecond)
	looks := server.CommandCount("get")
	require.LessOrEqual(t, looks, int64(5))
	begin := time.Now()
	close(finish)
	require.Less(t, receive(t, answered, "answer").Sub(begin), 400*time.Millisecond, "it waited for the next poll")
	cancel()
	require.NoError(t, <-done)
}

func TestAWorkerWithoutRightsSaysSoAtOnce(t *testing.T) {
	server := redistest.StartServer(t)
	require.NoError(t, server.Client().Do(context.Background(), "ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+hello").Err())
	for name, o := range map[string]*redis.Options{
		"WRONGPASS": {Addr: server.Addr, Username: "reader", Password: "wrong"},
		"NOPERM":    {Addr: server.Addr, Username: "reader", Password: "pw"},
	} {
		rdb := redis.NewClient(o)
		w, err := redrive.NewWorker(rdb, redrive.NewMux(), redrive.WorkerOptions{Logger: quiet})
		require.NoError(t, err)
		err = w.Run(context.Background())
		require.ErrorContains(t, err, name)
		require.ErrorContains(t, err, `queue "default"`)
		require.NoError(t, rdb.Close())
	}
}

// TestRepliesOfAServerThatIsNotReadyAreTriedAgain answers script calls with the
// errors of a server that loads, fails over, moves a slot or is busy.
func TestRepliesOfAServerThatIsNotReadyAreTriedAgain(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		r, proxy := faulty(t, b, 1)
		task := redrive.NewTask[number, int]("t", redrive.TaskOptions{ResultTTL: time.Minute})
		mux := redrive.NewMux()
		task.Handle(mux, func(_ context.Context, j *redrive.Job[number]) (int, error) { return j.Args.N, nil })
		r.start(mux, redrive.WorkerOptions{Lease: time.Second})
		for i, text := range []string{
			"LOADING Redis is loading the dataset in memory", "READONLY You can't write against a read only replica.",
			"MASTERDOWN Link with MASTER is down", "TRYAGAIN Multiple keys request during rehashing of slot",
			"CLUSTERDOWN The cluster is down", "BUSY Redis is busy running a script", "NOREPLICAS Not enough good replicas to write.",
		} {
			refused := proxy.Refuse(faultnet.Commands("evalsha", "eval"), 1, text)
			receipt, err := task.Enqueue(r.ctx(), r.client, number{i}, nil)
			require.NoError(t, err, text)
			got, err := receipt.Wait(r.ctx())
			require.NoError(t, err, text)
			require.Equal(t, i, got)
			require.Equal(t, 1, refused.Hits(), text)
		}
	})
}
