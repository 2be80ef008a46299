package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

// liveFor is how long queues are checked under load.
func liveFor() time.Duration {
	if os.Getenv("REDRIVE_LONG") != "" {
		return time.Minute
	}
	return time.Second
}

// TestChecksOfAQueueUnderLoadFindNothingAndHarmNothing: jobs are enqueued, run, fail,
// snooze, die and are requeued while checks mend what they take for damage. Nothing is.
func TestChecksOfAQueueUnderLoadFindNothingAndHarmNothing(t *testing.T) {
	t.Parallel()
	redistest.EachWithCluster(t, func(t *testing.T, b *redistest.Backend) {
		r := newRig(t, b)
		var mu sync.Mutex
		ended := make(map[string]int)
		task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{
			Retry: redrive.RetryPolicy{MaxRetries: 10, Backoff: redrive.Constant(time.Millisecond), Jitter: redrive.NoJitter},
		})
		handle := redrive.NoResult(func(_ context.Context, j *redrive.Job[number]) error {
			switch {
			case j.Args.N%5 == 1 && j.Starts == 1:
				return errors.New("once")
			case j.Args.N%5 == 2 && j.Starts < 4:
				return redrive.Snooze(time.Millisecond)
			case j.Args.N%5 == 3 && j.Generation == 0:
				return redrive.Permanent(errors.New("until it is requeued"))
			case j.Args.N%5 == 4 && j.Starts < 6:
				return redrive.RetryAfter(-1, errors.New("at once")) // ready again, not delayed
			}
			return nil
		})
		var workers []*running
		for range 2 {
			mux := redrive.NewMux()
			task.Handle(mux, handle)
			workers = append(workers, r.start(mux, redrive.WorkerOptions{Concurrency: 20, Trace: &redrive.WorkerTrace{
				JobSettled: func(m *redrive.Message, e redrive.JobEnd) {
					if e.Action == redrive.ActionDone {
						mu.Lock()
						defer mu.Unlock()
						ended[m.ID]++
					}
				},
			}}))
		}
		ctx, stop := context.WithTimeout(t.Context(), liveFor())
		defer stop()
		var load sync.WaitGroup
		var ids []string
		load.Go(func() { // keeps a backlog of some windows
			for n := 0; ctx.Err() == nil; n += 100 {
				if s, err := r.client.Stats(t.Context(), "default"); err == nil && s.Ready > 2000 {
					time.Sleep(time.Millisecond)
					continue
				}
				args := make([]number, 100)
				for i := range args {
					args[i].N = n + i
				}
				receipts, err := task.EnqueueMany(t.Context(), r.client, args, nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, r := range receipts {
					ids = append(ids, r.ID)
				}
				mu.Unlock()
			}
		})
		letters := r.client.DeadLetters("default")
		load.Go(func() {
			for ctx.Err() == nil {
				if _, err := letters.Redrive(t.Context(), redrive.RedriveOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
		checks := 0
		for ctx.Err() == nil {
			report, err := r.client.Check(t.Context(), "default", true)
			require.NoError(t, err)
			require.True(t, report.Sound(), "%s", report)
			checks++
		}
		load.Wait()
		r.eventually(func(s redrive.QueueStats) bool {
			_, err := letters.Redrive(t.Context(), redrive.RedriveOptions{})
			require.NoError(t, err)
			return s.Ready+s.Active+s.Delayed+s.Dead == 0
		}, "queue does not drain")
		for _, w := range workers { // the trace hears of an end after Redis
			require.NoError(t, w.stop())
		}
		require.Equal(t, len(ids), len(ended))
		for _, id := range ids {
			require.Equal(t, 1, ended[id])
		}
		t.Logf("%d checks over %d jobs", checks, len(ids))
	})
}

// backlog enqueues jobs whose ids tell their order.
func (h *hospital) backlog(n int) []string {
	jobs := make([]store.NewJob, n)
	ids := make([]string, n)
	for i := range jobs {
		ids[i] = fmt.Sprintf("job-%05d", i)
		jobs[i] = store.NewJob{ID: ids[i], Envelope: []byte(`{"v":1,"task":"ward"}`)}
	}
	for at := 0; at < n; at += store.MaxBatch {
		_, err := h.store.Enqueue(h.ctx(), uuid.NewString(), 1, true, jobs[at:min(at+store.MaxBatch, n)])
		require.NoError(h.t, err)
	}
	return ids
}

// TestI14_MuchDamageIsMendedInBoundedSteps: the list of what is ready is gone, most of
// it or all, and the queue is longer than a step.
func TestI14_MuchDamageIsMendedInBoundedSteps(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		for _, keep := range []int{0, 700} {
			h := &hospital{rig: newRig(t, b)}
			h.store = store.Open(h.rdb, b.Prefix, "default")
			ids := h.backlog(1801)
			if keep > 0 {
				require.NoError(t, h.rdb.LTrim(h.ctx(), h.key("ready"), 0, int64(keep-1)).Err())
			} else {
				require.NoError(t, h.rdb.Del(h.ctx(), h.key("ready")).Err())
			}
			f := h.check(true).Finding(redrive.DamageNotIndexed)
			require.Equal(t, len(ids)-keep, f.Found)
			require.Equal(t, f.Found, f.Mended)
			require.Len(t, f.IDs, redrive.MaxCheckIDs)
			ready, err := h.rdb.LRange(h.ctx(), h.key("ready"), 0, -1).Result()
			require.NoError(t, err)
			require.ElementsMatch(t, ids, ready)
			require.Equal(t, ids[:keep], ready[:keep], "what was not damaged keeps its place")
			for id, runs := range h.drain() {
				require.Equal(t, 1, runs, id)
			}
		}
	})
}

// TestI6_AMendingScriptWhoseAnswerIsLostHasTheEffectOfOne: go-redis sends it again.
// The report says what was done, not what the second copy found.
func TestI6_AMendingScriptWhoseAnswerIsLostHasTheEffectOfOne(t *testing.T) {
	t.Parallel()
	for name, c := range injuries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHospital(t, redistest.Redis(t))
			proxy := faultnet.New(t, h.b.Addr, 1)
			o := h.b.Options()
			o.Dialer = proxy.Dialer()
			rdb := redis.NewClient(o)
			defer rdb.Close()
			client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: h.b.Prefix, Logger: quiet})
			require.NoError(t, err)
			for nth := 1; ; nth++ {
				h.b.Flush()
				h = newHospital(t, h.b)
				require.NoError(t, c.hurt(h, h.rdb, h.ctx()))
				lost := proxy.DropReply(faultnet.Scripts(), nth)
				report, err := client.Check(t.Context(), "default", true)
				require.NoError(t, err)
				lost.Remove()
				c.want.matches(t, report)
				for _, f := range report.Findings {
					if c.left[f.Damage] == nil {
						require.Equal(t, f.Found, f.Mended, "%s, without the answer of script %d", report, nth)
					}
				}
				c.left.matches(t, h.check(true))
				if lost.Hits() == 0 { // as many scripts as there are
					h.b.Flush()
					return
				}
			}
		})
	}
}

// A worker that starts while a check runs owns jobs in a place that the check has not
// looked at.
func TestAWorkerThatStartsDuringACheckIsSeen(t *testing.T) {
	t.Parallel()
	h := newHospital(t, redistest.Redis(t))
	proxy := faultnet.New(t, h.b.Addr, 1)
	o := h.b.Options()
	o.Dialer = proxy.Dialer()
	rdb := redis.NewClient(o)
	defer rdb.Close()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: h.b.Prefix, Logger: quiet})
	require.NoError(t, err)
	_, err = client.Check(t.Context(), "default", false) // loads the scripts
	require.NoError(t, err)

	looks := proxy.DelayRequest(func(cmd []string) bool { return slices.Contains(cmd, "ready") }, 1, 300*time.Millisecond)
	reports := make(chan redrive.CheckReport, 1)
	go func() {
		report, err := client.Check(context.Background(), "default", true)
		if err != nil {
			t.Error(err)
		}
		reports <- report
	}()
	<-looks.Fired()
	_, err = h.store.Beat(h.ctx(), "late", time.Hour)
	require.NoError(t, err)
	c, err := h.store.Claim(h.ctx(), store.ClaimCall{Worker: "late", Call: 1, N: 4})
	require.NoError(t, err)
	require.Len(t, c.Jobs, 4)
	report := receive(t, reports, "report")
	require.True(t, report.Sound(), "%s", report)
}

// What a check saw of a job holds for that job, not for one that has its id later.
func TestAJobThatIsEnqueuedAnewDuringACheckIsNotDoubled(t *testing.T) {
	t.Parallel()
	h := newHospital(t, redistest.Redis(t))
	proxy := faultnet.New(t, h.b.Addr, 1)
	o := h.b.Options()
	o.Dialer = proxy.Dialer()
	rdb := redis.NewClient(o)
	defer rdb.Close()
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: h.b.Prefix, Logger: quiet})
	require.NoError(t, err)
	require.NoError(t, h.rdb.LRem(h.ctx(), h.key("ready"), 0, "r2").Err())
	_, err = client.Check(t.Context(), "default", false) // loads the scripts
	require.NoError(t, err)

	judges := proxy.DelayRequest(func(cmd []string) bool {
		return slices.Contains(cmd, h.key("bell")) && slices.Contains(cmd, "r2")
	}, 1, 300*time.Millisecond)
	reports := make(chan redrive.CheckReport, 1)
	go func() {
		report, err := client.Check(context.Background(), "default", true)
		if err != nil {
			t.Error(err)
		}
		reports <- report
	}()
	<-judges.Fired()
	require.NoError(t, h.rdb.HDel(h.ctx(), h.key("jobs"), "r2").Err())
	h.add("r2", 0)
	report := receive(t, reports, "report")
	require.True(t, report.Sound(), "%s", report)
	ready, err := h.rdb.LRange(h.ctx(), h.key("ready"), 0, -1).Result()
	require.NoError(t, err)
	require.Equal(t, []string{"r0", "r1", "r3", "r4", "r5", "r2"}, ready)
}
