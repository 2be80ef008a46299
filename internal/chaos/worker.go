package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// A worker is what the handlers of one worker process share.
type worker struct {
	name     string
	load     workload
	ledger   *journal
	attempts atomic.Int64
}

// attempt is one run of a handler, in the process that runs it.
type attempt struct {
	number int64
	job    job
	fails  bool // it is the attempt that is to fail
}

var (
	errFails     = errors.New("fails once")
	errFailsDead = errors.New("fails for good")
)

// begin writes that a handler has started.
func (w *worker) begin(id string, payload []byte, starts, retries, crashes, interrupts int) attempt {
	n := jobNumber(id)
	a := attempt{number: w.attempts.Add(1), job: w.load.job(n), fails: retries == 0}
	w.ledger.write(lineStart, "", a.number, int64(n), int64(starts), int64(retries), int64(crashes), int64(interrupts), hashOf(payload))
	return a
}

// work does what the job does, and writes how the handler returns before it does.
func (w *worker) work(ctx context.Context, a attempt, permanent func(error) error) (err error) {
	out, why := succeeds, ""
	if a.job.work > 0 {
		t := time.NewTimer(a.job.work)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			out, err = cancelled, context.Cause(ctx)
			why = err.Error()
		}
	}
	if err == nil {
		switch {
		case a.job.outcome == fails && a.fails:
			out, err = fails, errFails
		case a.job.outcome == failsDead:
			out, err = failsDead, permanent(errFailsDead)
		}
	}
	w.ledger.write(lineReturn, why, a.number, int64(a.job.n), int64(out))
	return err
}

// gap is how long a process must not have run for its ledger to say so.
const gap = 300 * time.Millisecond

// watchGaps notes when the process did not get to run: it was stopped, or the
// machine was busy.
func watchGaps(ctx context.Context, ledger *journal) {
	last := now()
	tick := time.NewTicker(gap / 10)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		if t := now(); t-last > int64(gap) {
			ledger.write(lineGap, "", last)
		}
		last = now()
	}
}

// workerProcess serves until SIGTERM.
func workerProcess(o childOptions, s side, ledger *journal) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	ledger.write(lineBegin, "", int64(os.Getpid()))
	go watchGaps(context.Background(), ledger)
	rdb := redis.NewClient(&redis.Options{Addr: o.Addr})
	defer func() { _ = rdb.Close() }()
	w := &worker{name: o.Name, load: o.load(), ledger: ledger}
	if err := s.serve(ctx, rdb, w); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	ledger.write(lineEnd, "")
	return nil
}
