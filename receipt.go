package redrive

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redrive-go/redrive/internal/store"
	"github.com/redrive-go/redrive/internal/wire"
)

// A Receipt is the claim check of one job.
type Receipt[R any] struct {
	// ID is the job's id.
	ID string
	// Duplicate is true when a job of this id was there already: the enqueue
	// added nothing.
	Duplicate bool

	client *Client
	queue  string
	codec  Codec
}

// Wait returns the job's result once the job has ended. It returns
// [*FailedError] for a job that is a dead letter, or that was discarded with a
// ResultTTL; the context's error when that is done first.
//
// Results are kept for [TaskOptions.ResultTTL]. With a ResultTTL of zero Wait
// still waits for the end, and returns [ErrNoResult] for a job that did not fail.
//
// All waits of a client on one queue share a subscription; the job is looked up
// when it is said to have ended, and every second in case that was lost.
func (r *Receipt[R]) Wait(ctx context.Context) (R, error) {
	ended, stop := r.client.queue(r.queue).watch.job(r.ID)
	defer stop()
	poll := time.NewTicker(time.Second)
	defer poll.Stop()
	for {
		result, done, err := r.Poll(ctx)
		if done || err != nil && !store.Transient(err) {
			return result, err
		}
		select {
		case <-ended:
		case <-poll.C:
		case <-ctx.Done():
			return result, fmt.Errorf("redrive: wait for job %s: %w", r.ID, context.Cause(ctx))
		}
	}
}

// Poll looks the job up once. done is false while the job waits or runs; else
// the answer is that of [Receipt.Wait].
func (r *Receipt[R]) Poll(ctx context.Context) (result R, done bool, err error) {
	fate, err := r.client.queue(r.queue).store.Fate(ctx, r.ID)
	switch {
	case err != nil:
		return result, false, fmt.Errorf("redrive: %w", unavailable(ctx, err))
	case fate.Pending:
		return result, false, nil
	case fate.HasResult:
		result, err = r.decode(fate.Result)
		return result, true, err
	case fate.Letter != "":
		d, err := wire.ParseDeadLetter([]byte(fate.Letter))
		if err != nil {
			return result, true, fmt.Errorf("redrive: dead letter of job %s: %w", r.ID, err)
		}
		return result, true, &FailedError{ID: r.ID, Task: d.TaskName, Reason: Reason(d.Reason), Retries: d.Retries, Message: d.Error}
	}
	return result, true, ErrNoResult
}

// A kept result is one byte that says what it is, and the bytes of the codec or
// a [FailedError] as JSON.
const (
	resultOK     = '+'
	resultFailed = '-'
)

func encodeResult(b []byte) []byte { return append([]byte{resultOK}, b...) }

func encodeFailure(e *FailedError) []byte {
	b, err := json.Marshal(e)
	if err != nil { // a struct of strings and numbers always encodes
		panic(err)
	}
	return append([]byte{resultFailed}, b...)
}

func (r *Receipt[R]) decode(b []byte) (result R, err error) {
	if len(b) == 0 {
		return result, fmt.Errorf("redrive: result of job %s is damaged", r.ID)
	}
	kind, b := b[0], b[1:]
	switch {
	case kind == resultFailed:
		failed := new(FailedError)
		if err := json.Unmarshal(b, failed); err != nil {
			return result, fmt.Errorf("redrive: result of job %s is damaged: %w", r.ID, err)
		}
		return result, failed
	case len(b) == 0: // None
		return result, nil
	}
	if err := r.codec.Unmarshal(b, &result); err != nil {
		return result, fmt.Errorf("redrive: decode the result of job %s: %w", r.ID, err)
	}
	return result, nil
}
