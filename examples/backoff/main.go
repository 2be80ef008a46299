// Command backoff is exponential backoff with jitter, for some errors and not for
// others. The recipe that people copy is a decorator:
//
//	@shared_task(max_retries=5, autoretry_for=(ConnectionError, TimeoutError),
//	             retry_backoff=True, retry_backoff_max=600, retry_jitter=True)
//
// Here it is a policy: a value, whose waits are known beforehand, that keeps its
// jitter at the cap and never draws a wait of zero.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

// policy retries what tends to pass: timeouts and broken connections.
// Everything else becomes a dead letter at once.
var policy = redrive.RetryPolicy{
	MaxRetries: 5,
	Backoff:    redrive.Exponential(time.Second, 10*time.Minute), // 1s, 2s, 4s, 8s, 16s
	Jitter:     redrive.EqualJitter,                              // half of each is random
	RetryIf:    redrive.Temporary,
}

type Args struct{ Endpoint string }

type Reply struct {
	Rate float64 `json:"rate"`
}

var CallAPI = redrive.NewTask[Args, Reply]("api.call", redrive.TaskOptions{
	Timeout:   30 * time.Second,
	ResultTTL: time.Minute,
	Retry:     shortened(policy),
})

// shortened makes the example end soon: 10 ms stand for a second.
func shortened(p redrive.RetryPolicy) redrive.RetryPolicy {
	p.Backoff = redrive.Exponential(10*time.Millisecond, 6*time.Second)
	return p
}

// An api is what the handler depends on: its methods are handlers.
type api struct{ client *http.Client }

func (a *api) call(ctx context.Context, job *redrive.Job[Args]) (reply Reply, err error) {
	// The context ends with the task's timeout, and when the worker stops.
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, job.Args.Endpoint, nil)
	if err != nil {
		return reply, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return reply, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return reply, errors.New(resp.Status)
	}
	return reply, json.NewDecoder(resp.Body).Decode(&reply)
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "backoff:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	fmt.Fprint(out, "The policy's waits for job rates-1:")
	for _, wait := range policy.Preview("rates-1") { // exact: the jitter is a hash of the id
		fmt.Fprint(out, " ", wait.Round(time.Millisecond))
	}
	fmt.Fprint(out, "\n\n")

	flaky := flakyServer()
	defer flaky.Close()
	redis, err := embedded.Start()
	if err != nil {
		return err
	}
	defer redis.Close()

	mux := redrive.NewMux()
	a := &api{client: &http.Client{Timeout: 500 * time.Millisecond}}
	CallAPI.Handle(mux, a.call)
	worker, err := redrive.NewWorker(redis.Client(), mux, redrive.WorkerOptions{
		Logger: slog.New(slog.DiscardHandler),
		Trace: &redrive.WorkerTrace{JobSettled: func(m *redrive.Message, end redrive.JobEnd) {
			fmt.Fprintf(out, "%s, attempt %d: %s\n", m.ID, m.Starts, end.Action)
		}},
		Concurrency: 1, // so that the lines come in order
	})
	if err != nil {
		return err
	}
	workerCtx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- worker.Run(workerCtx) }()

	client, err := redrive.NewClient(redis.Client(), redrive.ClientOptions{})
	var ends [2]string
	for i, id := range []string{"rates-1", "missing-1"} {
		if err == nil {
			ends[i], err = call(ctx, client, id, flaky.URL+"/"+id)
		}
	}
	stop()
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s\n%s\n", ends[0], ends[1])
	return nil
}

// call enqueues a job, waits for its end and describes it.
func call(ctx context.Context, client *redrive.Client, id, endpoint string) (string, error) {
	receipt, err := CallAPI.Enqueue(ctx, client, Args{endpoint}, &redrive.EnqueueOptions{ID: id})
	if err != nil {
		return "", err
	}
	reply, err := receipt.Wait(ctx)
	if failed, ok := errors.AsType[*redrive.FailedError](err); ok {
		return fmt.Sprintf("%s failed: %s, %s", id, failed.Message, failed.Reason), nil
	}
	return fmt.Sprintf("%s answered: %v", id, reply.Rate), err
}

// flakyServer breaks the first connection, lets the second request time out, and
// answers the third. It is asked for one endpoint at a time.
func flakyServer() *httptest.Server {
	requests := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/rates-1", func(w http.ResponseWriter, r *http.Request) {
		requests++
		switch requests {
		case 1:
			if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_ = conn.(*net.TCPConn).SetLinger(0) // a reset, not an orderly end
				_ = conn.Close()
			}
		case 2:
			<-r.Context().Done()
		default:
			fmt.Fprint(w, `{"rate": 1.25}`)
		}
	})
	return httptest.NewServer(mux) // anything else is 404
}
