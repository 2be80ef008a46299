package redrive

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

// RedriveOptions says which letters to redrive, and how.
type RedriveOptions struct {
	// Filter selects the letters; its Limit bounds how many. Until is at most the
	// start of the redrive, so that a job which dies again is not redriven in the same
	// run. Defaults to all.
	Filter DeadLetterFilter
	// Rate is how many letters a second, in steps of some 50 ms. After a hold-up, at
	// most what a second allows is caught up. Defaults to 0: as fast as Redis goes.
	Rate float64
	// DryRun does all but change anything: Moved says what would be moved.
	// Defaults to false.
	DryRun bool
	// Edit may change an entry's TaskName, Args, Data, Raw, Headers and
	// IdempotencyKey before it becomes a job. An error leaves the letter where it is.
	// Defaults to no change.
	Edit func(*DeadLetterEntry) error
	// Progress is called after every step, and holds up the redrive.
	// Defaults to none.
	Progress func(RedriveReport)
}

// maxReportErrors bounds [RedriveReport.Errors].
const maxReportErrors = 10

// RedriveReport says what a redrive has done so far.
type RedriveReport struct {
	// Matched letters were selected. Moved of them are jobs again; Skipped ones were
	// gone when it came to them, or under review; Refused ones stay: Edit returned an
	// error, or they cannot become jobs ([ErrRedacted]).
	Matched, Moved, Skipped, Refused int
	// Errors says why letters were refused, of the first ten.
	Errors []error
	// Until is the newest death that the run considers. To go on with a run that was
	// stopped, and not begin another, pass it as Filter.Until.
	Until time.Time
	// Elapsed is how long it took.
	Elapsed time.Duration
}

// Redrive makes all letters that the filter selects jobs again, oldest first, as
// [DeadLetters.Requeue] does, at a rate. It goes on until none is left, or the
// context is done; while Redis does not answer it waits. Each step is one script, so
// a redrive that is stopped or killed has moved each letter wholly or not at all, and
// calling Redrive again goes on with the rest. Two at once share the letters.
//
// The error says why it stopped early; refused letters are in the report.
func (d *DeadLetters) Redrive(ctx context.Context, o RedriveOptions) (RedriveReport, error) {
	if !(o.Rate >= 0 && o.Rate <= math.MaxFloat64) {
		return RedriveReport{}, fmt.Errorf("redrive: redrive: RedriveOptions.Rate is %v: use a positive number, or 0 for no limit", o.Rate)
	}
	patient := *d
	patient.bound = 0
	f := o.Filter
	if err := patient.upToNow(ctx, "redrive", &f); err != nil {
		return RedriveReport{}, err
	}
	run := &redriving{d: &patient, o: &o, by: newCaller(), started: time.Now()}
	run.report.Until = f.Until
	pace := pacer{rate: o.Rate, from: run.started}
	for page, err := range patient.pages(ctx, "redrive", f) {
		if err != nil {
			return run.progress(), err
		}
		entries := page.entries
		for len(entries) > 0 {
			n := pace.next(ctx, len(entries))
			if ctx.Err() != nil {
				return run.progress(), fmt.Errorf("redrive: redrive: %w", ctx.Err())
			}
			if err := run.step(ctx, entries[:n]); err != nil {
				return run.progress(), err
			}
			entries = entries[n:]
		}
	}
	return run.progress(), nil
}

// redriving is one call of Redrive.
type redriving struct {
	d       *DeadLetters
	o       *RedriveOptions
	by      *store.Caller
	started time.Time
	report  RedriveReport
}

func (r *redriving) progress() RedriveReport {
	r.report.Elapsed = time.Since(r.started)
	return r.report
}

// step moves up to a batch of letters.
func (r *redriving) step(ctx context.Context, entries []*DeadLetterEntry) error {
	r.report.Matched += len(entries)
	var ends []store.LetterEnd
	for _, e := range entries {
		end := e.ending()
		err := r.edit(e)
		if err == nil {
			end.Envelope, end.Ledger, err = e.job(time.Now(), r.d.client.opts.MaxPayload)
		}
		if err == nil {
			ends = append(ends, end)
			continue
		}
		r.report.Refused++
		if len(r.report.Errors) < maxReportErrors {
			r.report.Errors = append(r.report.Errors, err)
		}
	}
	switch {
	case r.o.DryRun:
		r.report.Moved += len(ends)
	case len(ends) > 0:
		fates, err := r.d.end(ctx, "redrive", r.by, store.Requeued, ends)
		if err != nil {
			return err
		}
		for _, fate := range fates {
			if fate == store.LetterDone {
				r.report.Moved++
			} else {
				r.report.Skipped++
			}
		}
	}
	if f := r.o.Progress; f != nil {
		f(r.progress())
	}
	return nil
}

// edit calls the user's function; a panic of it concerns one letter.
func (r *redriving) edit(e *DeadLetterEntry) (err error) {
	if r.o.Edit == nil || e.damaged != nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("dead letter %s: RedriveOptions.Edit panicked: %v", e.id, p)
		}
	}()
	if err := r.o.Edit(e); err != nil {
		return fmt.Errorf("dead letter %s: %w", e.id, err)
	}
	return nil
}

// paceStep is how long a pacer gathers what the rate allows.
const paceStep = 50 * time.Millisecond

// A pacer keeps a rate. It counts from one start, so that sleeping too long now makes
// the next batch larger, and nothing drifts.
type pacer struct {
	rate float64 // 0 = no limit
	from time.Time
	sent float64
}

// next waits until the rate allows something, or ctx is done, and returns how much of
// what is wanted.
func (p *pacer) next(ctx context.Context, want int) int {
	if p.rate == 0 {
		return want
	}
	for {
		allowed := time.Since(p.from).Seconds()*p.rate - p.sent
		if burst := max(p.rate, 1); allowed > burst { // held up: do not catch up all of it
			p.sent += allowed - burst
			allowed = burst
		}
		if allowed >= 1 {
			n := min(int(allowed), want)
			p.sent += float64(n)
			return n
		}
		// In float64 seconds: at a tiny rate the wait exceeds a Duration.
		wait := min(max((1-allowed)/p.rate, paceStep.Seconds()), 3600)
		if !sleep(ctx, time.Duration(wait*float64(time.Second))) {
			return 0
		}
	}
}
