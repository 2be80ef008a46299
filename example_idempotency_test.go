package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

// The same order is enqueued twice. It is charged once, and both receipts get
// the result.
func ExampleIdempotent() {
	server, err := embedded.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	rdb := server.Client()

	charge := redrive.NewTask[string, string]("charge", redrive.TaskOptions{ResultTTL: time.Hour})
	charges := 0
	mux := redrive.NewMux()
	charge.Handle(mux, func(_ context.Context, job *redrive.Job[string]) (string, error) {
		charges++ // pass job.IdempotencyKey to the payment API
		return fmt.Sprintf("charge %d for %s", charges, job.Args), nil
	}, redrive.Idempotent(rdb, redrive.IdempotencyOptions{TTL: 24 * time.Hour, BusyDelay: 10 * time.Millisecond}))
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- worker.Run(ctx) }()

	for range 2 {
		receipt, err := charge.Enqueue(ctx, client, "ann", &redrive.EnqueueOptions{IdempotencyKey: "order-7"})
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(receipt.Wait(ctx))
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// charge 1 for ann <nil>
	// charge 1 for ann <nil>
	// <nil>
}

// What a system needs that has the effect: the key, and a fence that it can
// compare with the highest one it has seen.
func ExampleIdempotencyClaimFrom() {
	handler := redrive.HandlerFunc(func(ctx context.Context, _ *redrive.Message) ([]byte, error) {
		claim, ok := redrive.IdempotencyClaimFrom(ctx)
		fmt.Println(claim.Key, claim.Fence > 0, ok)
		return nil, redrive.Permanent(errors.New("no such account"))
	})
	server, err := embedded.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	mw := redrive.Idempotent(server.Client(), redrive.IdempotencyOptions{})
	_, err = mw(handler).Process(context.Background(), &redrive.Message{ID: "job-1", Task: "charge", IdempotencyKey: "order-7"})
	fmt.Println(err)
	// Output:
	// order-7 true true
	// no such account
}
