package store

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// canned answers every command without a server, so that what is left is the
// building of the arguments and the decoding of the reply.
type canned struct{ reply any }

func (canned) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) {
		return nil, fmt.Errorf("canned: no connection is needed")
	}
}

func (c canned) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		switch cmd := cmd.(type) {
		case *redis.StringSliceCmd:
			cmd.SetVal(c.reply.([]string))
		case *redis.Cmd:
			cmd.SetVal(c.reply)
		}
		return nil
	}
}

func (canned) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func cannedQueue(tb testing.TB, reply any) *Queue {
	tb.Helper()
	rdb := redis.NewClient(&redis.Options{})
	tb.Cleanup(func() { _ = rdb.Close() })
	rdb.AddHook(canned{reply})
	return Open(rdb, DefaultPrefix, "bench")
}

const hotBatch = 50

func hotIDs() []string {
	ids := make([]string, hotBatch)
	for i := range ids {
		ids[i] = fmt.Sprintf("01985d6e-7f40-7cc0-8f5e-2b1f6a9c%04d", i)
	}
	return ids
}

func claimReply() []string {
	envelope := `{"v":1,"task":"bench.noop","at":1753437600000,"args":{"data":"` + strings.Repeat("x", 89) + `"}}`
	reply := append([]string{"ok", "1753437600000", "-1", "1753437600000000", strconv.Itoa(hotBatch)}, hotIDs()...)
	return append(reply, slices.Repeat([]string{envelope}, hotBatch)...)
}

func hotDone() []Done {
	done := make([]Done, hotBatch)
	for i, id := range hotIDs() {
		done[i].Owned = Owned{ID: id, Token: "1753437600000000"}
	}
	return done
}

func hotPutbacks() []Putback {
	back := make([]Putback, hotBatch)
	for i, id := range hotIDs() {
		back[i] = Putback{Owned: Owned{ID: id, Token: "1753437600000000"}, Delay: 1e6, Ledger: []byte(`{"v":1}`), Counter: Retried}
	}
	return back
}

func hotNewJobs() []NewJob {
	jobs := make([]NewJob, hotBatch)
	for i, id := range hotIDs() {
		jobs[i] = NewJob{ID: id, Envelope: []byte(`{"v":1,"task":"bench.noop","at":1753437600000,"args":{}}`)}
	}
	return jobs
}

// perJob reports the time of one job of a batch.
func perJob(b *testing.B, f func() error) {
	b.ReportAllocs()
	for b.Loop() {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/hotBatch, "ns/job")
}

func BenchmarkClaimDecode(b *testing.B) {
	q := cannedQueue(b, claimReply())
	perJob(b, func() error {
		_, err := q.Claim(b.Context(), ClaimCall{Worker: "w", Call: 1, N: hotBatch})
		return err
	})
}

func BenchmarkFinishArguments(b *testing.B) {
	q, done := cannedQueue(b, []string{""}), hotDone()
	perJob(b, func() error {
		_, err := q.Finish(b.Context(), Settler{Worker: "w", Call: "1"}, Succeeded, done)
		return err
	})
}

func BenchmarkPutbackArguments(b *testing.B) {
	q, back := cannedQueue(b, []string{""}), hotPutbacks()
	perJob(b, func() error {
		_, err := q.Putback(b.Context(), Settler{Worker: "w", Call: "1"}, back)
		return err
	})
}

func BenchmarkEnqueueArguments(b *testing.B) {
	q, jobs := cannedQueue(b, ""), hotNewJobs()
	perJob(b, func() error {
		_, err := q.Enqueue(b.Context(), "lane", 1, false, jobs)
		return err
	})
}
