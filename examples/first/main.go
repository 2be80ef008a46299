package main

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

type Order struct{ ID string }

var Ship = redrive.NewTask[Order, string]("order.ship", redrive.TaskOptions{
	Timeout: 30 * time.Second,
	Retry:   redrive.RetryPolicy{MaxRetries: 5, Backoff: redrive.Exponential(time.Second, 10*time.Minute)},
})

func main() {
	server, err := embedded.Start() // or: rdb := redis.NewClient(&redis.Options{Addr: "localhost:6379"})
	check(err)
	rdb := server.Client()

	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	check(err)
	_, err = Ship.Enqueue(context.Background(), client, Order{ID: "A-7"}, nil)
	check(err)

	mux := redrive.NewMux()
	Ship.Handle(mux, func(ctx context.Context, job *redrive.Job[Order]) (string, error) {
		fmt.Println("shipping", job.Args.ID)
		return "label-1", nil // an error would be retried, redrive.Permanent(err) would not
	})
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{Concurrency: 50})
	check(err)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	check(worker.Run(ctx)) // until the signal; then it drains
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
