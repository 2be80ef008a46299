package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

type greeting struct{ Name string }

var greet = redrive.NewTask[greeting, string]("greet", redrive.TaskOptions{ResultTTL: time.Hour})

func sayHello(_ context.Context, job *redrive.Job[greeting]) (string, error) {
	return "hello " + job.Args.Name, nil
}

// runtimeFor gives an example its Redis, a client and a running worker; stop ends
// them all.
func runtimeFor(mux *redrive.Mux, opts redrive.WorkerOptions) (client *redrive.Client, stop func()) {
	server, err := embedded.Start()
	if err != nil {
		log.Fatal(err)
	}
	rdb := server.Client()
	client, err = redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		log.Fatal(err)
	}
	opts.Logger = slog.New(slog.DiscardHandler)
	worker, err := redrive.NewWorker(rdb, mux, opts)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	return client, func() {
		cancel()
		if err := errors.Join(<-done, server.Close()); err != nil {
			log.Fatal(err)
		}
	}
}

// A whole program: a task, a producer and a worker, on a Redis in the process.
func Example() {
	server, err := embedded.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	rdb := server.Client() // in production: redis.NewClient(&redis.Options{Addr: "…"})

	mux := redrive.NewMux()
	greet.Handle(mux, sayHello)
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- worker.Run(ctx) }()

	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Wait(ctx))

	stop()
	fmt.Println(<-done)
	// Output:
	// hello Ann <nil>
	// <nil>
}

func ExampleNewTask() {
	type Args struct{ To string }
	type Delivery struct{ MessageID string }
	task := redrive.NewTask[Args, Delivery]("mail.welcome", redrive.TaskOptions{
		Queue:     "mail",
		Timeout:   30 * time.Second,
		ResultTTL: time.Hour,
	})
	fmt.Println(task.Name(), "in queue", task.Options().Queue, "with", task.Options().Retry.MaxRetries, "retries")
	// Output: mail.welcome in queue mail with 5 retries
}

// A base class is a value here: copy it and change the copy.
func ExampleTaskOptions_With() {
	base := redrive.TaskOptions{Queue: "mail", Timeout: 30 * time.Second}
	bulk := base.With(func(o *redrive.TaskOptions) { o.Queue = "bulk" })
	fmt.Println(base.Queue, bulk.Queue, bulk.Timeout)
	// Output: mail bulk 30s
}

// With an id of your own an enqueue may be repeated: the job is there once.
func ExampleTask_Enqueue() {
	mux := redrive.NewMux()
	client, stop := runtimeFor(mux, redrive.WorkerOptions{}) // it knows no task: the job waits
	defer stop()
	ctx := context.Background()
	opts := redrive.EnqueueOptions{ID: "greeting-7", Delay: time.Minute}
	for range 2 {
		receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, &opts)
		fmt.Println(receipt.ID, receipt.Duplicate, err)
	}
	// Output:
	// greeting-7 false <nil>
	// greeting-7 true <nil>
}

func ExampleTask_EnqueueMany() {
	mux := redrive.NewMux()
	greet.Handle(mux, sayHello)
	client, stop := runtimeFor(mux, redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	receipts, err := greet.EnqueueMany(ctx, client, []greeting{{"Ann"}, {"Bob"}, {"Cleo"}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range receipts {
		fmt.Println(r.Wait(ctx))
	}
	// Output:
	// hello Ann <nil>
	// hello Bob <nil>
	// hello Cleo <nil>
}

// Another process, or the same one later, waits by the job's id alone.
func ExampleTask_Receipt() {
	mux := redrive.NewMux()
	greet.Handle(mux, sayHello)
	client, stop := runtimeFor(mux, redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	if _, err := greet.Enqueue(ctx, client, greeting{"Ann"}, &redrive.EnqueueOptions{ID: "greeting-8"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(greet.Receipt(client, "greeting-8").Wait(ctx))
	// Output: hello Ann <nil>
}

func ExampleReceipt_Poll() {
	client, stop := runtimeFor(redrive.NewMux(), redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, &redrive.EnqueueOptions{Delay: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	_, done, err := receipt.Poll(ctx)
	fmt.Println(done, err)
	// Output: false <nil>
}

// A job that was given up answers its receipt with the reason.
func ExampleFailedError() {
	mux := redrive.NewMux()
	greet.Handle(mux, func(context.Context, *redrive.Job[greeting]) (string, error) {
		return "", redrive.Permanent(errors.New("nobody is home"))
	})
	client, stop := runtimeFor(mux, redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = receipt.Wait(ctx)
	if failed, ok := errors.AsType[*redrive.FailedError](err); ok {
		fmt.Println(failed.Reason, "after", failed.Retries, "retries:", failed.Message)
	}
	// Output: permanent after 0 retries: nobody is home
}

// A panic costs the attempt, not the worker.
func ExamplePanicError() {
	ended := make(chan error, 1)
	mux := redrive.NewMux()
	task := redrive.NewTask[int, redrive.None]("divide", redrive.TaskOptions{
		Retry: redrive.RetryPolicy{MaxRetries: redrive.NoRetries},
	})
	task.Handle(mux, redrive.NoResult(func(_ context.Context, job *redrive.Job[int]) error {
		fmt.Println(1 / job.Args)
		return nil
	}))
	client, stop := runtimeFor(mux, redrive.WorkerOptions{Trace: &redrive.WorkerTrace{
		JobSettled: func(_ *redrive.Message, end redrive.JobEnd) { ended <- end.Err },
	}})
	defer stop()
	if _, err := task.Enqueue(context.Background(), client, 0, nil); err != nil {
		log.Fatal(err)
	}
	if p, ok := errors.AsType[*redrive.PanicError](<-ended); ok {
		fmt.Println(p.Value)
	}
	// Output: runtime error: integer divide by zero
}

// chatty returns middleware that says what it does.
func chatty(name string) redrive.Middleware {
	return func(next redrive.Handler) redrive.Handler {
		return redrive.HandlerFunc(func(ctx context.Context, m *redrive.Message) ([]byte, error) {
			fmt.Println(name, "opens")
			defer fmt.Println(name, "closes") // whatever the attempt's outcome
			return next.Process(ctx, m)
		})
	}
}

// Use is for all tasks.
func ExampleMux_Use() {
	mux := redrive.NewMux()
	mux.Use(chatty("tracing"), chatty("metrics"))
	greet.Handle(mux, sayHello)
	result, err := mux.Process(context.Background(), &redrive.Message{Task: "greet", Payload: []byte(`{"Name":"Ann"}`)})
	fmt.Println(string(result), err)
	// Output:
	// tracing opens
	// metrics opens
	// metrics closes
	// tracing closes
	// "hello Ann" <nil>
}

// With makes a group: the behavioural half of a base class.
func ExampleMux_With() {
	mux := redrive.NewMux()
	mux.Use(chatty("tracing"))
	stored := mux.With(chatty("database"))
	greet.Handle(stored, sayHello)
	mux.Handle("ping", redrive.HandlerFunc(func(context.Context, *redrive.Message) ([]byte, error) {
		return []byte("pong"), nil
	}))
	for _, m := range []*redrive.Message{{Task: "greet", Payload: []byte(`{"Name":"Ann"}`)}, {Task: "ping"}} {
		result, err := mux.Process(context.Background(), m)
		fmt.Println(string(result), err)
	}
	// Output:
	// tracing opens
	// database opens
	// database closes
	// tracing closes
	// "hello Ann" <nil>
	// tracing opens
	// tracing closes
	// pong <nil>
}

// Handle is the untyped layer: the payload is bytes, and no policy is added.
func ExampleMux_Handle() {
	policy := redrive.RetryPolicy{MaxRetries: 2, Backoff: redrive.Constant(time.Second), Jitter: redrive.NoJitter}
	mux := redrive.NewMux()
	mux.Handle("legacy.raw", redrive.Retry(policy)(redrive.HandlerFunc(
		func(_ context.Context, m *redrive.Message) ([]byte, error) {
			return nil, fmt.Errorf("cannot read %q", m.Payload)
		})))
	_, err := mux.Process(context.Background(), &redrive.Message{Task: "legacy.raw", Payload: []byte("a;b")})
	fmt.Println(err, "/", redrive.Disposition(err).Action, "in", redrive.Disposition(err).Delay)
	// Output: cannot read "a;b" / retry in 1s
}

// The first listed is the outermost.
func ExampleChain() {
	h := redrive.Chain(chatty("outer"), chatty("inner"))(redrive.HandlerFunc(
		func(_ context.Context, m *redrive.Message) ([]byte, error) {
			fmt.Println("handler runs", m.ID)
			return nil, nil
		}))
	_, _ = h.Process(context.Background(), &redrive.Message{ID: "job-1"})
	// Output:
	// outer opens
	// inner opens
	// handler runs job-1
	// inner closes
	// outer closes
}

func ExampleHandlerFunc() {
	var h redrive.Handler = redrive.HandlerFunc(func(_ context.Context, m *redrive.Message) ([]byte, error) {
		return append([]byte("got "), m.Payload...), nil
	})
	result, err := h.Process(context.Background(), &redrive.Message{Payload: []byte("7")})
	fmt.Println(string(result), err)
	// Output: got 7 <nil>
}

func ExampleNoResult() {
	mux := redrive.NewMux()
	task := redrive.NewTask[greeting, redrive.None]("wave", redrive.TaskOptions{})
	task.Handle(mux, redrive.NoResult(func(_ context.Context, job *redrive.Job[greeting]) error {
		fmt.Println("waving to", job.Args.Name)
		return nil
	}))
	_, err := mux.Process(context.Background(), &redrive.Message{Task: "wave", Payload: []byte(`{"Name":"Ann"}`)})
	fmt.Println(err)
	// Output:
	// waving to Ann
	// <nil>
}

// Key turns arguments into the key of an idempotent or a singleton handler.
func ExampleTask_Key() {
	key := greet.Key(func(g greeting) string { return "greeting:" + g.Name })
	fmt.Println(key(&redrive.Message{Payload: []byte(`{"Name":"Ann"}`)}))
	// Output: greeting:Ann
}

// A job that is not ready to be done comes back later, and no retry is used.
func ExampleSnooze_inAWorker() {
	mux := redrive.NewMux()
	greet.Handle(mux, func(_ context.Context, job *redrive.Job[greeting]) (string, error) {
		if job.Snoozes < 2 {
			return "", redrive.Snooze(time.Millisecond)
		}
		return fmt.Sprintf("hello %s, after %d snoozes and %d retries", job.Args.Name, job.Snoozes, job.Retries), nil
	})
	client, stop := runtimeFor(mux, redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Wait(ctx))
	// Output: hello Ann, after 2 snoozes and 0 retries <nil>
}

// A handler that knows when to come back says so.
func ExampleRetryAfter_inAWorker() {
	mux := redrive.NewMux()
	greet.Handle(mux, func(_ context.Context, job *redrive.Job[greeting]) (string, error) {
		if job.Retries == 0 {
			return "", redrive.RetryAfter(5*time.Millisecond, errThrottled)
		}
		return fmt.Sprintf("hello %s, at attempt %d; before: %s", job.Args.Name, job.Starts, job.Errors[0].Error), nil
	})
	client, stop := runtimeFor(mux, redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Wait(ctx))
	// Output: hello Ann, at attempt 2; before: throttled <nil>
}

// A discarded job is gone: counted and logged, but no dead letter.
func ExampleDiscard_inAWorker() {
	mux := redrive.NewMux()
	greet.Handle(mux, func(context.Context, *redrive.Job[greeting]) (string, error) {
		return "", redrive.Discard(errors.New("the account was deleted"))
	})
	client, stop := runtimeFor(mux, redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	_, err = receipt.Wait(ctx)
	failed, _ := errors.AsType[*redrive.FailedError](err)
	stats, err := client.Stats(ctx, redrive.DefaultQueue)
	fmt.Println(failed.Reason, stats.Discarded, stats.Dead, err)
	// Output: discarded 1 0 <nil>
}

// A trace observes; it can change nothing.
func ExampleWorkerTrace() {
	done := make(chan struct{})
	trace := &redrive.WorkerTrace{
		JobStarted: func(m *redrive.Message) { fmt.Println("start", m.Starts, "of", m.Task) },
		JobSettled: func(_ *redrive.Message, end redrive.JobEnd) {
			fmt.Println("end:", end.Action, end.Reason, end.Err)
			if end.Action == redrive.ActionDead {
				close(done)
			}
		},
	}
	task := redrive.NewTask[greeting, redrive.None]("trace.me", redrive.TaskOptions{
		Retry: redrive.RetryPolicy{MaxRetries: 1, Backoff: redrive.Constant(time.Millisecond)},
	})
	mux := redrive.NewMux()
	task.Handle(mux, redrive.NoResult(func(_ context.Context, job *redrive.Job[greeting]) error {
		return errThrottled
	}))
	client, stop := runtimeFor(mux, redrive.WorkerOptions{Concurrency: 1, Trace: trace})
	defer stop()
	if _, err := task.Enqueue(context.Background(), client, greeting{"Ann"}, nil); err != nil {
		log.Fatal(err)
	}
	<-done
	// Output:
	// start 1 of trace.me
	// end: retry  throttled
	// start 2 of trace.me
	// end: dead exhausted throttled
}

// The queues of a worker share its slots by weight.
func ExampleWorker_Run() {
	server, err := embedded.Start()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	mux := redrive.NewMux()
	greet.Handle(mux, sayHello)
	worker, err := redrive.NewWorker(server.Client(), mux, redrive.WorkerOptions{
		Queues:          []redrive.Queue{{Name: "mail", Weight: 3}, {Name: "bulk"}},
		Concurrency:     50,
		ShutdownTimeout: 10 * time.Second,
		Logger:          slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	// In a program: signal.NotifyContext(context.Background(), syscall.SIGTERM).
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println(worker.Run(ctx)) // returns when what runs has ended
	// Output: <nil>
}

// Every problem is reported at once, by name.
func ExampleNewWorker_errors() {
	_, err := redrive.NewWorker(nil, redrive.NewMux(), redrive.WorkerOptions{Concurrency: -1, Lease: time.Millisecond})
	fmt.Println(err)
	// Output:
	// redrive: NewWorker: WorkerOptions.Concurrency is -1: use a positive value, or 0 for the default
	// WorkerOptions.Lease is 1ms: use at least 1s
	// rdb is nil: pass a go-redis client
}

func ExampleClient_Pause() {
	mux := redrive.NewMux()
	greet.Handle(mux, sayHello)
	client, stop := runtimeFor(mux, redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	if err := client.Pause(ctx, redrive.DefaultQueue); err != nil {
		log.Fatal(err)
	}
	receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	stats, err := client.Stats(ctx, redrive.DefaultQueue)
	fmt.Println("paused:", stats.Paused, "ready:", stats.Ready, err)

	if err := client.Resume(ctx, redrive.DefaultQueue); err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Wait(ctx))
	// Output:
	// paused: true ready: 1 <nil>
	// hello Ann <nil>
}

func ExampleClient_Stats() {
	mux := redrive.NewMux()
	greet.Handle(mux, sayHello)
	client, stop := runtimeFor(mux, redrive.WorkerOptions{})
	defer stop()
	ctx := context.Background()
	receipt, err := greet.Enqueue(ctx, client, greeting{"Ann"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := greet.Enqueue(ctx, client, greeting{"Bob"}, &redrive.EnqueueOptions{Delay: time.Hour}); err != nil {
		log.Fatal(err)
	}
	if _, err := receipt.Wait(ctx); err != nil {
		log.Fatal(err)
	}
	s, err := client.Stats(ctx, redrive.DefaultQueue)
	fmt.Println("enqueued", s.Enqueued, "succeeded", s.Succeeded, "delayed", s.Delayed, "dead", s.Dead, err)
	// Output: enqueued 2 succeeded 1 delayed 1 dead 0 <nil>
}
