// Command idempotency charges payments that are enqueued twice, throttled,
// refused and cut off by a crash, and charges each of them once.
//
// It is the Go twin of the recipe "Idempotency Protection", without its race: the
// recipe looks for a mark, works, and sets the mark, so that two workers may both
// find none. [redrive.Idempotent] claims the key first.
//
//	go run ./examples/idempotency
//
// It runs on a Redis inside the process, or on the one that REDIS_URL names.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

// PaymentArgs and Payment are what goes in and comes out.
type (
	PaymentArgs struct {
		PaymentID string `json:"payment_id"`
		Customer  string `json:"customer"`
		Amount    int    `json:"amount"`
	}
	Payment struct {
		Status   string `json:"status"`
		IntentID string `json:"intent_id"`
	}
)

var processPayment = redrive.NewTask[PaymentArgs, Payment]("process_payment", redrive.TaskOptions{
	Queue:     "example-payments",
	ResultTTL: time.Minute,
	Retry: redrive.RetryPolicy{
		MaxRetries: 3,
		Backoff:    redrive.Exponential(50*time.Millisecond, time.Second),
		Jitter:     redrive.NoJitter,
	},
})

type payer struct{ api *paymentAPI }

// process has one line on idempotency: it passes the key on, so that an attempt
// that died after the charge does not charge again.
func (p *payer) process(ctx context.Context, job *redrive.Job[PaymentArgs]) (Payment, error) {
	intent, err := p.api.createIntent(ctx, job.IdempotencyKey, job.Args)
	switch {
	case errors.Is(err, errRateLimit):
		return Payment{}, redrive.RetryAfter(60*time.Millisecond, err)
	case errors.Is(err, errInvalidRequest):
		return Payment{}, redrive.Permanent(err)
	case err != nil:
		return Payment{}, err
	}
	if job.Args.Customer == "unlucky" && job.Starts == 1 {
		panic("the power went off after the charge, before the mark")
	}
	return Payment{Status: "success", IntentID: intent}, nil
}

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	rdb, closeRedis, err := connect()
	if err != nil {
		return err
	}
	defer closeRedis()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		return err
	}

	api := newPaymentAPI()
	p := &payer{api: api}
	mux := redrive.NewMux()
	processPayment.Handle(mux, p.process, redrive.Idempotent(rdb, redrive.IdempotencyOptions{
		TTL:       24 * time.Hour,
		BusyDelay: 20 * time.Millisecond,
	}))
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Queues: []redrive.Queue{{Name: "example-payments"}},
		Logger: slog.New(slog.DiscardHandler), // the program tells what happens
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx) }()
	err = story(out, client, api)
	stop()
	return errors.Join(err, <-done)
}

// story enqueues payments and tells what becomes of them.
func story(out io.Writer, client *redrive.Client, api *paymentAPI) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// A real key is the payment's ID alone. The time lets this program run again on
	// a Redis that remembers the last run.
	key := func(id string) string { return fmt.Sprintf("payment:%s:%d", id, api.opened.UnixNano()) }
	enqueue := func(id, customer string, amount int) (*redrive.Receipt[Payment], error) {
		return processPayment.Enqueue(ctx, client, PaymentArgs{PaymentID: id, Customer: customer, Amount: amount},
			&redrive.EnqueueOptions{IdempotencyKey: key(id)})
	}
	tell := func(what, id string, receipts ...*redrive.Receipt[Payment]) {
		fmt.Fprintf(out, "%s\n", what)
		for _, receipt := range receipts {
			payment, err := receipt.Wait(ctx)
			var failed *redrive.FailedError
			switch {
			case errors.As(err, &failed):
				fmt.Fprintf(out, "  dead letter, %s after %d retries\n", failed.Reason, failed.Retries)
			case err != nil:
				fmt.Fprintf(out, "  %v\n", err)
			default:
				fmt.Fprintf(out, "  %s, intent %s\n", payment.Status, payment.IntentID)
			}
		}
		calls, charges := api.seen(key(id))
		fmt.Fprintf(out, "  the API saw %d calls and made %d charges\n", calls, charges)
	}

	var receipts []*redrive.Receipt[Payment]
	for range 3 {
		receipt, err := enqueue("order-1", "ann", 1200)
		if err != nil {
			return err
		}
		receipts = append(receipts, receipt)
	}
	tell("order-1 is enqueued three times at once:", "order-1", receipts...)
	for _, c := range []struct {
		what, id, customer string
		amount             int
	}{
		{"order-1 comes again, later:", "order-1", "ann", 1200},
		{"order-1 comes with another amount:", "order-1", "ann", 9900},
		{"order-2 is throttled, and comes again after 60 ms:", "order-2", "throttled", 500},
		{"order-3 is refused for good:", "order-3", "bob", -1},
		{"order-4 crashes after the charge; the key travels to the API:", "order-4", "unlucky", 700},
	} {
		receipt, err := enqueue(c.id, c.customer, c.amount)
		if err != nil {
			return err
		}
		tell(c.what, c.id, receipt)
	}
	return nil
}

// connect returns the Redis to use.
func connect() (redis.UniversalClient, func(), error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		rdb := redis.NewClient(opts)
		return rdb, func() { _ = rdb.Close() }, nil
	}
	server, err := embedded.Start()
	if err != nil {
		return nil, nil, err
	}
	return server.Client(), func() { _ = server.Close() }, nil
}
