package redrive_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

// A payload was deleted by hand, and a job's place in its queue.
func ExampleClient_Check() {
	server, err := embedded.Start()
	must(err)
	defer server.Close()
	rdb, ctx := server.Client(), context.Background()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	must(err)
	mail := redrive.NewTask[string, redrive.None]("mail", redrive.TaskOptions{})
	for _, id := range []string{"ann", "bob", "eve"} {
		_, err := mail.Enqueue(ctx, client, id, &redrive.EnqueueOptions{ID: id})
		must(err)
	}
	must(rdb.HDel(ctx, "redrive:{default}:jobs", "ann").Err())
	must(rdb.LRem(ctx, "redrive:{default}:ready", 0, "eve").Err())

	report, err := client.Check(ctx, "default", true)
	must(err)
	fmt.Println(report)
	report, err = client.Check(ctx, "default", false)
	must(err)
	fmt.Println(report)
	// Output:
	// queue default is damaged
	// no payload: 1 found, 1 mended: ann
	// not indexed: 1 found, 1 mended: eve
	// queue default is sound
}

// An enqueue that is to survive the failure of the master waits for a replica. This
// Redis has none.
func ExampleReplicationError() {
	server, err := embedded.Start()
	must(err)
	defer server.Close()
	client, err := redrive.NewClient(server.Client(), redrive.ClientOptions{Replicas: 1})
	must(err)
	pay := redrive.NewTask[string, redrive.None]("pay", redrive.TaskOptions{})

	receipt, err := pay.Enqueue(context.Background(), client, "12 EUR", &redrive.EnqueueOptions{ID: "order-7"})
	if few, ok := errors.AsType[*redrive.ReplicationError](err); ok {
		fmt.Println(few)
		fmt.Println("job", receipt.ID, "will run all the same")
	}
	// Output:
	// enqueued 1 jobs, and 0 of the 1 replicas wanted have them
	// job order-7 will run all the same
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
