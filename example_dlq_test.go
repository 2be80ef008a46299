package redrive_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/redrive-go/redrive"
)

var errNoSuchAccount = errors.New("no such account")

// charge fails for good for every account but "ann".
var charge = redrive.NewTask[string, redrive.None]("charge", redrive.TaskOptions{})

// buried starts a worker, has charges of two accounts die, and returns once OnDead
// has heard of both.
func buried() (letters *redrive.DeadLetters, client *redrive.Client, stop func()) {
	heard := make(chan string, 2)
	mux := redrive.NewMux()
	mux.Use(redrive.DeadLetter(redrive.DeadLetterOptions{
		MaxCount: 10_000,
		OnDead: func(_ context.Context, e *redrive.DeadLetterEntry) error { // page somebody
			select {
			case heard <- e.TaskID:
			default:
			}
			return nil
		},
	}))
	charge.Handle(mux, redrive.NoResult(func(_ context.Context, job *redrive.Job[string]) error {
		if job.Args != "ann" {
			return redrive.Permanent(fmt.Errorf("%s: %w", job.Args, errNoSuchAccount))
		}
		return nil
	}))
	client, stop = runtimeFor(mux, redrive.WorkerOptions{})
	for i, account := range []string{"bob", "ane"} {
		_, err := charge.Enqueue(context.Background(), client, account, &redrive.EnqueueOptions{ID: fmt.Sprintf("charge-%d", i+1)})
		if err != nil {
			log.Fatal(err)
		}
		<-heard
	}
	return client.DeadLetters(redrive.DefaultQueue), client, stop
}

func ExampleDeadLetters_All() {
	letters, _, stop := buried()
	defer stop()
	ctx := context.Background()
	for e, err := range letters.All(ctx, redrive.DeadLetterFilter{Task: charge.Name(), ErrorContains: "no such account"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %s %s: %s\n", e.TaskID, e.Args, e.Reason, e.Error)
	}
	counts, err := letters.Counts(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(counts.Total, counts.ByTask, counts.ByReason)
	// Output:
	// charge-1 "bob" permanent: bob: no such account
	// charge-2 "ane" permanent: ane: no such account
	// 2 map[charge:2] map[permanent:2]
}

func ExampleDeadLetters_Redrive() {
	letters, client, stop := buried()
	defer stop()
	ctx := context.Background()
	report, err := letters.Redrive(ctx, redrive.RedriveOptions{
		Filter: redrive.DeadLetterFilter{Task: charge.Name()},
		Rate:   500, // a second
		Edit: func(e *redrive.DeadLetterEntry) error {
			if string(e.Args) != `"ane"` {
				return errors.New("ask the customer")
			}
			e.Args = json.RawMessage(`"ann"`) // a typing error
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("moved %d of %d\n", report.Moved, report.Matched)
	for _, err := range report.Errors {
		fmt.Println(err)
	}
	_, err = charge.Receipt(client, "charge-2").Wait(ctx)
	fmt.Println(errors.Is(err, redrive.ErrNoResult)) // it succeeded; charge keeps no results
	// Output:
	// moved 1 of 2
	// dead letter charge-1: ask the customer
	// true
}

// A reviewer that may die over its work loses no letter: what it has not resolved by
// the end of the lease is anybody's again.
func ExampleDeadLetters_Review() {
	letters, _, stop := buried()
	defer stop()
	ctx := context.Background()
	reviewed, err := letters.Review(ctx, charge.Name(), 10, 5*time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range reviewed {
		fmt.Println("refund", r.TaskID)
		if err := r.Resolve(ctx); err != nil { // ErrReviewLost: somebody else has it
			log.Fatal(err)
		}
	}
	left, err := letters.Drain(ctx, charge.Name(), 10)
	fmt.Println(len(left), err)
	// Output:
	// refund charge-1
	// refund charge-2
	// 0 <nil>
}
