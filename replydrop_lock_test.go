package redrive_test

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
)

// lockers returns a locker that calls through the proxy, and one that does not.
func (s *stage) lockers(o redrive.LockerOptions) (through, around *redrive.Locker) {
	return s.locker(o), s.clean.locker(o)
}

// free reports whether the lock can be had, and gives it back.
func (s *stage) free(l *redrive.Locker, key string) bool {
	lock, err := l.TryAcquire(s.ctx(), key)
	if err != nil {
		require.ErrorIs(s.t, err, redrive.ErrLockHeld)
		return false
	}
	require.NoError(s.t, lock.Release(s.ctx()))
	return true
}

// hold takes a lock until the test ends.
func (s *stage) hold(l *redrive.Locker, key string) {
	lock, err := l.TryAcquire(s.ctx(), key)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = lock.Release(context.Background()) })
}

var lockUses = []use{
	{"TryAcquire", []string{"lock_acquire"}, func(s *stage) string {
		through, around := s.lockers(redrive.LockerOptions{})
		s.arm()
		lock, err := through.TryAcquire(s.ctx(), "k")
		require.NoError(s.t, err)
		held := s.free(around, "k")
		require.NoError(s.t, lock.Release(s.ctx()))
		return s.sum(held, s.free(around, "k"))
	}, "false true"},
	{"TryAcquire of a lock that is held", []string{"lock_acquire"}, func(s *stage) string {
		through, around := s.lockers(redrive.LockerOptions{Holder: "me"})
		s.hold(around, "k")
		s.arm()
		_, err := through.TryAcquire(s.ctx(), "k")
		var held *redrive.AlreadyRunningError
		require.ErrorAs(s.t, err, &held)
		return s.sum(held.Holder)
	}, "me"},
	{"Acquire that waits", []string{"lock_acquire", "lock_release"}, func(s *stage) string {
		through, around := s.lockers(redrive.LockerOptions{})
		first, err := around.TryAcquire(s.ctx(), "k")
		require.NoError(s.t, err)
		time.AfterFunc(30*time.Millisecond, func() { _ = first.Release(context.Background()) })
		s.arm()
		lock, err := through.Acquire(s.ctx(), "k")
		require.NoError(s.t, err)
		require.Greater(s.t, lock.Token(), first.Token())
		require.NoError(s.t, lock.Release(s.ctx()))
		return s.sum(s.free(around, "k"))
	}, "true"},
	{"semaphore", []string{"lock_acquire", "lock_release"}, func(s *stage) string {
		through, around := s.lockers(redrive.LockerOptions{Limit: 2})
		s.arm()
		one, err := through.TryAcquire(s.ctx(), "k")
		require.NoError(s.t, err)
		two, err := through.TryAcquire(s.ctx(), "k")
		require.NoError(s.t, err)
		both := s.free(around, "k")
		require.NoError(s.t, one.Release(s.ctx()))
		half := s.free(around, "k")
		require.NoError(s.t, two.Release(s.ctx()))
		return s.sum(both, half)
	}, "false true"},
	{"Refresh", []string{"lock_renew"}, func(s *stage) string {
		through, around := s.lockers(redrive.LockerOptions{})
		lock, err := through.TryAcquire(s.ctx(), "k")
		require.NoError(s.t, err)
		s.arm()
		s.tries(func() error { return lock.Refresh(s.ctx()) })
		held := s.free(around, "k")
		require.NoError(s.t, lock.Release(s.ctx()))
		return s.sum(held, s.free(around, "k"))
	}, "false true"},
	{"renewal of a lock", []string{"lock_renew"}, func(s *stage) string {
		through, around := s.lockers(redrive.LockerOptions{TTL: 2 * time.Second})
		s.arm()
		lock, err := through.TryAcquire(s.ctx(), "k")
		require.NoError(s.t, err)
		time.Sleep(2200 * time.Millisecond) // longer than the TTL
		require.NoError(s.t, lock.Context().Err())
		held := s.free(around, "k")
		require.NoError(s.t, lock.Release(s.ctx()))
		return s.sum(held, s.free(around, "k"))
	}, "false true"},
	{"Locker.Do", []string{"lock_acquire", "lock_release"}, func(s *stage) string {
		through, around := s.lockers(redrive.LockerOptions{})
		s.arm()
		var within bool
		require.NoError(s.t, through.Do(s.ctx(), "k", func(context.Context) error { within = s.free(around, "k"); return nil }))
		return s.sum(within, s.free(around, "k"))
	}, "false true"},
	{"Singleton", []string{"lock_acquire", "lock_release"}, func(s *stage) string {
		s.put("ok", "retry", "ok")
		s.arm()
		w := s.serve(1, s.mux(redrive.Singleton(s.rdb, redrive.SingletonOptions{Prefix: s.b.Prefix, Logger: quiet})))
		s.clean.drained()
		require.NoError(s.t, w.stop())
		return s.sum()
	}, "ok:2 retry:2 enqueued=3 succeeded=3 retried=1"},
	{"Singleton that is held, skipped", []string{"lock_acquire"}, func(s *stage) string {
		_, around := s.lockers(redrive.LockerOptions{Scope: "act"})
		s.hold(around, "act")
		s.put("ok")
		s.arm()
		w := s.serve(1, s.mux(redrive.Singleton(s.rdb, redrive.SingletonOptions{Prefix: s.b.Prefix, Logger: quiet})))
		s.clean.drained()
		require.NoError(s.t, w.stop())
		return s.sum()
	}, "enqueued=1 discarded=1"},
	{"Singleton that is renewed", []string{"lock_renew"}, func(s *stage) string {
		s.put("long")
		s.arm()
		w := s.serve(1, s.mux(redrive.Singleton(s.rdb, redrive.SingletonOptions{TTL: 2 * time.Second, Prefix: s.b.Prefix, Logger: quiet})))
		s.clean.drained()
		require.NoError(s.t, w.stop())
		return s.sum()
	}, "long:1 enqueued=1 succeeded=1"},
}

// keyed serves act with Idempotent through the proxy.
func (s *stage) keyed(slots int) *running {
	return s.serve(slots, s.mux(redrive.Idempotent(s.rdb, redrive.IdempotencyOptions{
		Lease: 3 * time.Second, BusyDelay: 5 * time.Millisecond, Prefix: s.b.Prefix, Logger: quiet,
	})))
}

// putKeyed enqueues a job of act with an idempotency key around the proxy.
func (s *stage) putKeyed(key, how string) *redrive.Receipt[string] {
	receipt, err := act.Enqueue(s.ctx(), s.clean.client, how, &redrive.EnqueueOptions{IdempotencyKey: key})
	require.NoError(s.t, err)
	return receipt
}

var effectUses = []use{
	{"Idempotent", []string{"idem_claim", "idem_complete"}, func(s *stage) string {
		a, b := s.putKeyed("k", "ok"), s.putKeyed("k", "ok")
		s.arm()
		w := s.keyed(1)
		s.clean.drained()
		require.NoError(s.t, w.stop())
		first, err := a.Wait(s.ctx())
		require.NoError(s.t, err)
		second, err := b.Wait(s.ctx())
		require.NoError(s.t, err)
		return s.sum(first, second)
	}, "ok! ok! ok:1 enqueued=2 succeeded=2"},
	{"Idempotent that fails", []string{"idem_claim", "idem_release", "idem_complete"}, func(s *stage) string {
		s.putKeyed("k", "retry")
		s.arm()
		w := s.keyed(1)
		s.clean.drained()
		require.NoError(s.t, w.stop())
		return s.sum()
	}, "retry:2 enqueued=1 succeeded=1 retried=1"},
	{"Idempotent that is renewed", []string{"idem_extend"}, func(s *stage) string {
		s.putKeyed("k", "long")
		s.arm()
		w := s.keyed(1)
		s.clean.drained()
		require.NoError(s.t, w.stop())
		return s.sum()
	}, "long:1 enqueued=1 succeeded=1"},
	{"Idempotent of a key that is reused", []string{"idem_claim", "bury|bury+claim"}, func(s *stage) string {
		s.putKeyed("k", "ok")
		s.clean.drain(s.mux(redrive.Idempotent(s.clean.rdb, redrive.IdempotencyOptions{Prefix: s.b.Prefix, Logger: quiet})))
		reused := s.putKeyed("k", "other")
		s.arm()
		w := s.keyed(2)
		s.clean.drained()
		require.NoError(s.t, w.stop())
		return s.sum(s.clean.letter(redrive.DefaultQueue, reused.ID)["reason"])
	}, "key-reused ok:1 dead=1 enqueued=2 succeeded=1 died=1"},
}

// drain serves the default queue until it is empty.
func (r *rig) drain(mux *redrive.Mux) {
	w := r.start(mux, redrive.WorkerOptions{})
	r.drained()
	require.NoError(r.t, w.stop())
}
