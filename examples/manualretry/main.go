// Command manualretry lets the handler say what follows a failure: a server error
// waits as long as the handler says, a client error is not retried at all.
//
//	go run ./examples/manualretry
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

type Email struct {
	To      string `json:"to"`
	Subject string `json:"subject"`
}

var SendEmail = redrive.NewTask[Email, string]("send.email", redrive.TaskOptions{
	Queue: "mail", ResultTTL: time.Minute,
	Retry: redrive.RetryPolicy{MaxRetries: 3, Backoff: redrive.Constant(60 * time.Millisecond), Jitter: redrive.NoJitter},
})

// mailer has what its handler needs: a method value carries it.
type mailer struct{ api string }

func (m *mailer) send(ctx context.Context, job *redrive.Job[Email]) (string, error) {
	body, err := json.Marshal(job.Args)
	if err != nil {
		return "", redrive.Permanent(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.api, bytes.NewReader(body))
	if err != nil {
		return "", redrive.Permanent(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil { // no connection: 10 ms, 20 ms, 40 ms, each wait our own
		return "", redrive.RetryAfter(10*time.Millisecond<<job.Retries, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 500: // the server's trouble: as the policy says
		return "", fmt.Errorf("mail API: %s", resp.Status)
	case resp.StatusCode >= 400: // ours: no retry can mend it
		return "", redrive.Permanent(fmt.Errorf("mail API: %s", resp.Status))
	}
	return "sent", nil
}

// mailAPI drops the first connection, is down for the second request, and knows no
// address but ann's.
func mailAPI() *httptest.Server {
	var requests atomic.Int32
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var mail Email
		_ = json.NewDecoder(r.Body).Decode(&mail)
		switch {
		case mail.To != "ann":
			w.WriteHeader(http.StatusUnprocessableEntity)
		case requests.Add(1) == 1:
			panic(http.ErrAbortHandler)
		case requests.Load() == 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "manualretry:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	rdb, closeRedis, err := connect(out)
	if err != nil {
		return err
	}
	defer closeRedis()
	api := mailAPI()
	defer api.Close()

	mux := redrive.NewMux()
	SendEmail.Handle(mux, (&mailer{api: api.URL}).send)
	worker, err := redrive.NewWorker(rdb, mux, redrive.WorkerOptions{
		Queues: []redrive.Queue{{Name: "mail"}}, Concurrency: 1, Logger: slog.New(slog.DiscardHandler),
		Trace: &redrive.WorkerTrace{JobSettled: func(m *redrive.Message, end redrive.JobEnd) {
			line := fmt.Sprintf("%s, attempt %d: %v", m.ID, m.Starts, end.Action)
			if end.Action == redrive.ActionRetry {
				line += " in about " + end.Delay.Round(10*time.Millisecond).String()
			}
			fmt.Fprintln(out, line)
		}},
	})
	if err != nil {
		return err
	}
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{})
	if err != nil {
		return err
	}
	workerCtx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- worker.Run(workerCtx) }()
	var lines []string
	for _, to := range []string{"ann", "nobody"} {
		receipt, err := SendEmail.Enqueue(ctx, client, Email{To: to, Subject: "hello"}, &redrive.EnqueueOptions{ID: "mail-to-" + to})
		if err != nil {
			stop()
			return err
		}
		status, err := receipt.Wait(ctx)
		if err != nil {
			status = err.Error()
		}
		lines = append(lines, fmt.Sprintf("%s: %s", to, status))
	}
	stop()
	if err := <-done; err != nil {
		return err
	}
	fmt.Fprintln(out)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	return nil
}

// connect uses the Redis that REDIS_URL names, or else one inside the process.
func connect(out io.Writer) (redis.UniversalClient, func(), error) {
	if url := os.Getenv("REDIS_URL"); url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("REDIS_URL: %w", err)
		}
		client := redis.NewClient(opts)
		return client, func() { _ = client.Close() }, nil
	}
	fmt.Fprint(out, "REDIS_URL is not set: using a Redis inside this process.\n\n")
	server, err := embedded.Start()
	if err != nil {
		return nil, nil, err
	}
	return server.Client(), func() { _ = server.Close() }, nil
}
