package redrive

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// What one job costs in Go, without Redis: the benchmarks of the hot path, and
// in hotpath_allocs_test.go the allocations it may cost. The encodings have their
// own in internal/wire, the calls of Redis in internal/store.

type hotArgs struct {
	Data string `json:"data"`
}

// hotPayload is 100 bytes of JSON.
var hotPayload = []byte(`{"data":"` + strings.Repeat("x", 89) + `"}`)

var hotTask = NewTask[hotArgs, None]("bench.noop", TaskOptions{})

// hotHandler is what a worker calls for one attempt: the chain as Mux.Handle
// computes it, with the task's Retry, timeout and decoding.
func hotHandler(err error) Handler {
	mux := NewMux()
	hotTask.Handle(mux, NoResult(func(context.Context, *Job[hotArgs]) error { return err }))
	return mux.table.byTask["bench.noop"].handler
}

func hotMessage() *Message {
	return &Message{ID: "01985d6e-7f40-7cc0-8f5e-2b1f6a9c3d10", Task: "bench.noop", Queue: "default", Payload: hotPayload, Starts: 1}
}

func BenchmarkHandlerChain(b *testing.B) {
	h, m := hotHandler(nil), hotMessage()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Process(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHandlerChainFails(b *testing.B) {
	h, m := hotHandler(errors.New("refused")), hotMessage()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Process(b.Context(), m); err == nil {
			b.Fatal("no error")
		}
	}
}

func BenchmarkEncodeJob(b *testing.B) {
	c, args := hotClient(b), []hotArgs{{Data: strings.Repeat("x", 89)}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := hotTask.encode(c, args, &EnqueueOptions{Queue: "default"}); err != nil {
			b.Fatal(err)
		}
	}
}

// hotClient is a client that is never connected.
func hotClient(tb testing.TB) *Client {
	tb.Helper()
	return &Client{opts: ClientOptions{}.withDefaults(), queues: make(map[string]*clientQueue)}
}

func BenchmarkBackoffDelay(b *testing.B) {
	for name, jitter := range map[string]Jitter{"none": NoJitter, "equal": EqualJitter, "decorrelated": DecorrelatedJitter} {
		b.Run(name, func(b *testing.B) {
			p := RetryPolicy{Backoff: Exponential(time.Second, 10*time.Minute), Jitter: jitter}.withDefaults()
			b.ReportAllocs()
			for b.Loop() {
				for range p.delays("01985d6e-7f40-7cc0-8f5e-2b1f6a9c3d10", 0, 3) {
					break
				}
			}
		})
	}
}

func BenchmarkDecideRetry(b *testing.B) {
	p, m, err := defaultPolicy, hotMessage(), errors.New("refused")
	b.ReportAllocs()
	for b.Loop() {
		if d := decide(&p, m, err); d.action != ActionRetry {
			b.Fatal(d.action)
		}
	}
}
