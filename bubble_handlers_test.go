package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive"
)

// mux returns the handlers of one worker: they play each job's script and write
// down what they see.
func (b *bubble) mux(w *bubbleWorker, rdb redis.UniversalClient) *redrive.Mux {
	mux := redrive.NewMux()
	mux.Use(b.watch(w))
	for _, t := range b.plan.tasks {
		var layers []redrive.Middleware
		key := t.task.Key(func(a bubbleArgs) string { return a.Key })
		switch t.layer {
		case alone:
			layers = append(layers, redrive.Singleton(rdb, redrive.SingletonOptions{
				Key: key, OnConflict: t.conflict, TTL: t.ttl, Logger: quiet,
			}))
		case once:
			layers = append(layers, redrive.Idempotent(rdb, redrive.IdempotencyOptions{Lease: t.ttl, Logger: quiet}))
		}
		t.task.Handle(mux, b.handle, layers...)
	}
	return mux
}

// watch is the outermost middleware: it writes down how the whole chain ends.
func (b *bubble) watch(w *bubbleWorker) redrive.Middleware {
	return func(next redrive.Handler) redrive.Handler {
		return redrive.HandlerFunc(func(ctx context.Context, m *redrive.Message) (result []byte, err error) {
			w.handlers.Add(1)
			defer w.handlers.Done()
			r := b.ledger.run(m)
			err = errExited
			defer func() { b.ledger.chainEnded(r, context.Cause(ctx), result, err) }()
			result, err = next.Process(ctx, m)
			return result, err
		})
	}
}

// errExited stands for the error of a handler that has called runtime.Goexit.
var errExited = errors.New("exited")

func (l *bubbleLedger) chainEnded(r *bubbleRun, cause error, result []byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.ended, r.finished, r.cause, r.result, r.err = l.now(), true, cause, string(result), err
}

// handle is the handler of every task.
func (b *bubble) handle(ctx context.Context, job *redrive.Job[bubbleArgs]) (result string, err error) {
	r := b.ledger.run(job.Message)
	b.ledger.innerBegan(r, ctx, job)
	unwatch := context.AfterFunc(ctx, func() { b.ledger.innerAlone(r) })
	defer unwatch()
	err = errExited
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPlanned, p)
			defer panic(p)
		}
		b.ledger.innerEnded(r, context.Cause(ctx), err)
	}()
	if cut := work(ctx, r.step); cut != nil {
		err = fmt.Errorf("cut off: %w", cut)
		return "", err
	}
	switch s := r.step; s.do {
	case fail:
		err = errPlanned
	case failRuled:
		err = errRuled
	case failPermanent:
		err = redrive.Permanent(errPlanned)
	case panics:
		panic("planned")
	case goexits:
		runtime.Goexit()
	case asksRetry:
		err = redrive.RetryAfter(s.wait, errPlanned)
	case snoozes:
		err = redrive.Snooze(s.wait)
	case discards:
		err = redrive.Discard(errPlanned)
	default:
		err = nil
	}
	return job.ID, err
}

// work takes as long as the step says, or returns why it was cut off.
func work(ctx context.Context, s step) error {
	if s.takes == 0 {
		return nil
	}
	done := time.NewTimer(s.takes)
	defer done.Stop()
	select {
	case <-done.C:
		return nil
	case <-ctx.Done():
	}
	deaf := time.NewTimer(s.deaf)
	defer deaf.Stop()
	select {
	case <-done.C:
		return nil
	case <-deaf.C:
		return context.Cause(ctx)
	}
}

func (l *bubbleLedger) innerBegan(r *bubbleRun, ctx context.Context, job *redrive.Job[bubbleArgs]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inners++
	r.inner, r.innerBegan, r.innerOrder = true, l.now(), l.inners
	r.fence, _ = redrive.FencingToken(ctx)
	if r.job == nil || job.Args != r.job.args || job.Task != r.job.task.name || job.Queue != r.job.task.queue {
		l.findings = append(l.findings, finding{"I2", job.ID, fmt.Sprintf("runs as %+v of %s in %s", job.Args, job.Task, job.Queue)})
	}
}

func (l *bubbleLedger) innerAlone(r *bubbleRun) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.alone = min(r.alone, l.now())
}

func (l *bubbleLedger) innerEnded(r *bubbleRun, cause, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.innerEnded, r.played, r.innerCause, r.innerErr = l.now(), true, cause, err
	text := "returns"
	if cause != nil {
		text = fmt.Sprintf("(context: %v) returns", cause)
	}
	l.noteLocked("run", r.worker.plan.name, r.job.id, "%s %v", text, err)
}
