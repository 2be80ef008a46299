package redrive_test

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/store"
)

// one enqueues one job through the proxy.
func one(o redrive.EnqueueOptions) func(*stage) string {
	return func(s *stage) string {
		s.arm()
		receipt, err := act.Enqueue(s.ctx(), s.client, "ok", &o)
		require.NoError(s.t, err)
		return s.finish(receipt.Duplicate)
	}
}

var enqueueUses = []use{
	{"Enqueue", []string{"enqueue"}, one(redrive.EnqueueOptions{}), "false ok:1 enqueued=1 succeeded=1"},
	{"Enqueue with an id", []string{"enqueue"}, one(redrive.EnqueueOptions{ID: "x"}), "false ok:1 enqueued=1 succeeded=1"},
	{"Enqueue delayed", []string{"enqueue"}, one(redrive.EnqueueOptions{Delay: 30 * time.Millisecond}), "false ok:1 enqueued=1 succeeded=1"},
	{"Enqueue at a time", []string{"enqueue"}, func(s *stage) string {
		return one(redrive.EnqueueOptions{RunAt: time.Now().Add(50 * time.Millisecond)})(s)
	}, "false ok:1 enqueued=1 succeeded=1"},
	{"Enqueue of an id that waits", []string{"enqueue"}, func(s *stage) string {
		_, err := act.Enqueue(s.ctx(), s.clean.client, "ok", &redrive.EnqueueOptions{ID: "x"})
		require.NoError(s.t, err)
		return one(redrive.EnqueueOptions{ID: "x"})(s)
	}, "true ok:1 enqueued=1 succeeded=1"},
	{"Enqueue of an id that is dead", []string{"enqueue"}, func(s *stage) string {
		_, err := act.Enqueue(s.ctx(), s.clean.client, "permanent", &redrive.EnqueueOptions{ID: "x"})
		require.NoError(s.t, err)
		s.finish()
		return one(redrive.EnqueueOptions{ID: "x"})(s)
	}, "true permanent:1 dead=1 enqueued=1 died=1"},
	{"EnqueueMany", []string{"enqueue"}, func(s *stage) string {
		s.arm()
		receipts, err := act.EnqueueMany(s.ctx(), s.client, slices.Repeat([]string{"ok"}, 1100), nil)
		require.NoError(s.t, err)
		ids := make(map[string]bool)
		for _, r := range receipts {
			require.False(s.t, r.Duplicate)
			ids[r.ID] = true
		}
		return s.finish(len(ids))
	}, "1100 ok:1100 enqueued=1100 succeeded=1100"},
	{"Enqueue from many goroutines", []string{"enqueue"}, func(s *stage) string {
		s.arm()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				receipt, err := act.Enqueue(s.ctx(), s.client, "ok", &redrive.EnqueueOptions{ID: fmt.Sprint(i / 2)})
				if err != nil {
					s.t.Error(err)
				} else if receipt.Duplicate {
					s.mu.Lock()
					s.heard = append(s.heard, receipt.ID)
					s.mu.Unlock()
				}
			})
		}
		all.Wait()
		slices.Sort(s.heard)
		// A job that ran between two enqueues of its id would run again: none has, yet.
		return s.finish(s.heard)
	}, "[0 1 2 3 4 5 6 7 8 9] ok:10 enqueued=10 succeeded=10"},
}

// settling returns the uses of a script that ends attempts: alone, where the queue
// has nothing more, and in one call with a claim, where it has. Whether the claim has
// told the schedule that there is nothing more before the attempt ends is chance.
func settling(script, how, want, wantFused string) []use {
	return []use{
		{"end of an attempt: " + how, []string{"claim", script + "|" + script + "+claim"}, func(s *stage) string {
			s.put(how)
			s.each = 5 * time.Millisecond
			s.arm()
			w := s.serve(2, s.mux())
			s.clean.drained()
			require.NoError(s.t, w.stop())
			return s.sum()
		}, want},
		{"end of an attempt, and a claim: " + how, []string{"claim", script + "+claim"}, func(s *stage) string {
			s.put(how, "ok", "ok")
			s.arm()
			w := s.serve(1, s.mux())
			s.clean.drained()
			require.NoError(s.t, w.stop())
			return s.sum()
		}, wantFused},
	}
}

// orphan makes a job the property of a worker whose lease lapses now.
func (s *stage) orphan() {
	q := store.Open(s.clean.rdb, s.b.Prefix, redrive.DefaultQueue)
	_, err := q.Beat(s.ctx(), "ghost", time.Minute)
	require.NoError(s.t, err)
	c, err := q.Claim(s.ctx(), store.ClaimCall{Worker: "ghost", Call: 1, N: 1})
	require.NoError(s.t, err)
	require.Len(s.t, c.Jobs, 1)
	_, err = q.Beat(s.ctx(), "ghost", time.Millisecond)
	require.NoError(s.t, err)
}

// burying returns the use of bury for a job that never gets to run.
func burying(name string, reason redrive.Reason, opts redrive.WorkerOptions, put func(s *stage) string, want string) use {
	return use{name, []string{"bury|bury+claim"}, func(s *stage) string {
		id := put(s)
		s.arm()
		o := opts
		o.Lease = time.Second
		w := s.start(s.mux(), o)
		s.clean.eventually(func(q redrive.QueueStats) bool { return q.Dead == 1 }, "not dead")
		require.NoError(s.t, w.stop())
		require.EqualValues(s.t, reason, s.clean.letter(redrive.DefaultQueue, id)["reason"])
		return s.sum()
	}, want}
}

var workerUses = slices.Concat(
	settling("finish", "ok", "ok:1 enqueued=1 succeeded=1", "ok:3 enqueued=3 succeeded=3"),
	settling("finish", "discard", "discard:1 enqueued=1 discarded=1", "discard:1 ok:2 enqueued=3 succeeded=2 discarded=1"),
	settling("putback", "retry", "retry:2 enqueued=1 succeeded=1 retried=1", "ok:2 retry:2 enqueued=3 succeeded=3 retried=1"),
	settling("putback", "snooze", "snooze:2 enqueued=1 succeeded=1 snoozed=1", "ok:2 snooze:2 enqueued=3 succeeded=3 snoozed=1"),
	settling("bury", "permanent", "permanent:1 dead=1 enqueued=1 died=1", "ok:2 permanent:1 dead=1 enqueued=3 succeeded=2 died=1"),
	settling("bury", "exhaust", "exhaust:4 dead=1 enqueued=1 retried=3 died=1", "exhaust:4 ok:2 dead=1 enqueued=3 succeeded=2 retried=3 died=1"),
	[]use{
		{"end of an attempt without a result", []string{"finish|finish+claim"}, func(s *stage) string {
			_, err := bare.Enqueue(s.ctx(), s.clean.client, "ok", nil)
			require.NoError(s.t, err)
			s.arm()
			w := s.serve(2, s.mux())
			s.clean.drained()
			require.NoError(s.t, w.stop())
			return s.sum()
		}, "ok:1 enqueued=1 succeeded=1"},
		{"many jobs", []string{"claim", "finish+claim"}, func(s *stage) string {
			s.put(slices.Repeat([]string{"ok", "retry"}, 50)...)
			s.arm()
			w := s.serve(10, s.mux())
			s.clean.drained()
			require.NoError(s.t, w.stop())
			return s.sum()
		}, "ok:50 retry:100 enqueued=100 succeeded=100 retried=50"},
		{"claim of delayed jobs", []string{"claim"}, func(s *stage) string {
			for i := range 5 {
				_, err := act.Enqueue(s.ctx(), s.clean.client, "ok", &redrive.EnqueueOptions{Delay: time.Duration(1+20*i) * time.Millisecond})
				require.NoError(s.t, err)
			}
			s.arm()
			w := s.serve(2, s.mux())
			s.clean.drained()
			require.NoError(s.t, w.stop())
			return s.sum()
		}, "ok:5 enqueued=5 succeeded=5"},
		{"shutdown of a handler that heeds it", []string{"putback"}, func(s *stage) string {
			s.put("interrupt")
			w := s.start(s.mux(), redrive.WorkerOptions{Lease: time.Second, ShutdownTimeout: 5 * time.Second})
			s.began("interrupt")
			s.arm()
			if err := w.stop(); err != nil { // a machine so busy that a second was not enough
				require.ErrorContains(s.t, err, "when the lease has lapsed")
			}
			return s.finish()
		}, "interrupt:2 enqueued=1 succeeded=1 interrupted=1"},
		{"shutdown", []string{"leave"}, func(s *stage) string {
			w := s.serve(1, s.mux())
			s.clean.eventually(func(q redrive.QueueStats) bool { return q.Workers == 1 }, "no worker")
			s.arm()
			require.NoError(s.t, w.stop())
			return s.sum(s.clean.stats(redrive.DefaultQueue).Workers)
		}, "0"},
		{"heartbeat", []string{"beat"}, func(s *stage) string {
			s.put("long")
			s.arm()
			w := s.serveFor(2*time.Second, 1, s.mux())
			s.clean.drained()
			require.NoError(s.t, w.stop())
			return s.sum()
		}, "long:1 enqueued=1 succeeded=1"},
		{"reaping", []string{"expired", "putback"}, func(s *stage) string {
			s.put("ok")
			s.orphan()
			s.arm()
			w := s.start(s.mux(), redrive.WorkerOptions{Lease: time.Second})
			s.clean.eventually(func(q redrive.QueueStats) bool { return q.Succeeded == 1 && q.Workers == 1 }, "not reaped")
			require.NoError(s.t, w.stop())
			return s.sum()
		}, "ok:1 enqueued=1 succeeded=1 crashed=1"},
		burying("burial of a crash loop", redrive.ReasonCrashLoop, redrive.WorkerOptions{MaxCrashes: 1}, func(s *stage) string {
			id := s.put("ok")[0].ID
			s.orphan()
			return id
		}, "dead=1 enqueued=1 died=1"),
		burying("burial of an unknown task", redrive.ReasonUnknownTask, redrive.WorkerOptions{UnknownTaskAge: 1}, func(s *stage) string {
			receipt, err := pay.Enqueue(s.ctx(), s.clean.client, "x", nil)
			require.NoError(s.t, err)
			return receipt.ID
		}, "dead=1 enqueued=1 died=1"),
		burying("burial of what is malformed", redrive.ReasonMalformed, redrive.WorkerOptions{}, func(s *stage) string {
			base := s.b.Prefix + ":{default}:"
			require.NoError(s.t, s.clean.rdb.HSet(s.ctx(), base+"jobs", "x", "{{{").Err())
			require.NoError(s.t, s.clean.rdb.RPush(s.ctx(), base+"ready", "x").Err())
			return "x"
		}, "dead=1 died=1"),
		burying("burial of what is too old", redrive.ReasonMaxAge, redrive.WorkerOptions{}, func(s *stage) string {
			base := s.b.Prefix + ":{default}:"
			require.NoError(s.t, s.clean.rdb.HSet(s.ctx(), base+"jobs", "x", `{"v":1,"task":"aged","args":"ok","at":1000}`).Err())
			require.NoError(s.t, s.clean.rdb.RPush(s.ctx(), base+"ready", "x").Err())
			return "x"
		}, "dead=1 died=1"),
	},
)

var readUses = []use{
	{"Stats", []string{"stats"}, func(s *stage) string {
		s.put("ok", "ok")
		s.arm()
		var q redrive.QueueStats
		s.tries(func() (err error) { q, err = s.client.Stats(s.ctx(), redrive.DefaultQueue); return err })
		return s.sum(q.Ready, q.Enqueued)
	}, "2 2 ready=2 enqueued=2"},
	{"Poll", []string{"fate"}, func(s *stage) string {
		id := s.put("ok")[0].ID
		s.finish()
		s.arm()
		var result string
		var done bool
		s.tries(func() (err error) { result, done, err = act.Receipt(s.client, id).Poll(s.ctx()); return err })
		return s.sum(result, done)
	}, "ok! true ok:1 enqueued=1 succeeded=1"},
	{"Wait", []string{"fate"}, func(s *stage) string {
		receipts := s.put("ok", "permanent")
		s.finish()
		s.arm()
		result, err := act.Receipt(s.client, receipts[0].ID).Wait(s.ctx())
		require.NoError(s.t, err)
		_, err = act.Receipt(s.client, receipts[1].ID).Wait(s.ctx())
		var failed *redrive.FailedError
		require.ErrorAs(s.t, err, &failed)
		return s.sum(result, failed.Reason)
	}, "ok! permanent ok:1 permanent:1 dead=1 enqueued=2 succeeded=1 died=1"},
	{"Pause", []string{"hset"}, func(s *stage) string {
		s.arm()
		s.tries(func() error { return s.client.Pause(s.ctx(), redrive.DefaultQueue) })
		return s.sum(s.clean.stats(redrive.DefaultQueue).Paused)
	}, "true"},
	{"Resume", []string{"hdel", "ring"}, func(s *stage) string {
		require.NoError(s.t, s.clean.client.Pause(s.ctx(), redrive.DefaultQueue))
		s.arm()
		s.tries(func() error { return s.client.Resume(s.ctx(), redrive.DefaultQueue) })
		// One element at most: the audit looks, too.
		bell := s.clean.rdb.LLen(s.ctx(), s.b.Prefix+":{default}:bell").Val()
		return s.sum(s.clean.stats(redrive.DefaultQueue).Paused, bell)
	}, "false 1"},
}
