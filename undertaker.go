package redrive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redrive-go/redrive/internal/store"
)

const (
	// hookPlaces is how many calls of OnDead run at once per queue.
	hookPlaces = 16
	// hookMargin is how much longer than its context a call may take until another
	// worker takes the letter.
	hookMargin = 2 * time.Second
	// hookLook bounds how long a letter goes unnoticed that another worker left.
	hookLook = 10 * time.Second
	// dropTimeout bounds a call of OnDrop.
	dropTimeout = 10 * time.Second
	// trimEvery bounds how often burials have the letters of a queue trimmed.
	trimEvery = 20 * time.Millisecond
)

// An undertaker looks after one queue's dead letters for a session: it calls the
// hooks that are owed, and drops what exceeds the retention. It works on what Redis
// says is owed, never on what this process remembers, so it does not matter which
// worker buried a job, and nothing here holds up a settlement.
//
// Its goroutines, announce (only where the mux has an OnDead) and retain, end after
// session.quit is closed, once the calls for the last burials are made, or when
// session.after ends. A call of a hook is a goroutine of its own, as a call that
// ignores its context must hold up neither the others nor the shutdown.
type undertaker struct {
	q *served

	mu    sync.Mutex
	grown map[string]bool // tasks that have got letters since retain looked
	// full tells retain of them; owed tells announce that a hook is due, or that a
	// place is free.
	full, owed chan struct{}
	places     chan struct{}

	hooks *store.Caller // of announce
	trims *store.Caller // of retain

	ending sync.Mutex // one connection for the ends of all calls: settles need theirs
}

func (u *undertaker) init(q *served) {
	u.q = q
	u.grown = make(map[string]bool)
	u.full, u.owed = make(chan struct{}, 1), make(chan struct{}, 1)
	u.places = make(chan struct{}, hookPlaces)
	u.hooks, u.trims = store.NewCaller(q.s.id+"/hooks"), store.NewCaller(q.s.id+"/trims")
}

// start starts the goroutines.
func (u *undertaker) start() {
	u.q.s.undertakers.Go(u.retain)
	if u.q.s.mux.table.hears() {
		u.q.s.undertakers.Go(u.announce)
	}
}

// buried notes that Redis has a new letter of a task. It never blocks.
func (u *undertaker) buried(task string) {
	u.mu.Lock()
	u.grown[task] = true
	u.mu.Unlock()
	poke(u.full)
	poke(u.owed)
}

// poke signals a channel with room for one signal.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// announce calls hooks when they are owed.
func (u *undertaker) announce() {
	s := u.q.s
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			for u.hear() == 0 { // all places are taken
				select {
				case <-u.owed:
				case <-s.after.Done():
					return
				}
			}
			return
		case <-u.owed:
		case <-timer.C:
		}
		if wait := u.hear(); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// hear starts the calls that are due, as far as there are places, and returns when
// to look again: 0 for when a call has ended.
func (u *undertaker) hear() (wait time.Duration) {
	s := u.q.s
	wait = hookLook/2 + rand.N(hookLook/2)
	var tasks []store.HookTask
	if err := u.try(func(ctx context.Context) (err error) {
		tasks, err = u.q.store.HookTasks(ctx)
		return err
	}); err != nil {
		return wait
	}
	for _, t := range tasks {
		rules := s.mux.table.deadLetter(t.Task)
		switch {
		case rules.OnDead == nil: // another worker's
			continue
		case t.In > 0:
			wait = min(wait, t.In)
			continue
		}
		for more := true; more; {
			free := cap(u.places) - len(u.places)
			if free == 0 {
				return 0
			}
			if more = u.take(t.Task, rules, free); s.after.Err() != nil {
				return wait
			}
		}
		// Those it has not taken are due when it is called again, or later.
	}
	return wait
}

// take starts up to n calls for a task, and reports whether more may be due.
func (u *undertaker) take(task string, rules *DeadLetterOptions, n int) bool {
	u.hooks.Next()
	var got store.HookLetters
	if err := u.try(func(ctx context.Context) (err error) {
		got, err = u.q.store.TakeHooks(ctx, u.hooks, task, n, rules.OnDeadTimeout+hookMargin)
		return err
	}); err != nil {
		return false
	}
	for _, l := range got.Letters {
		u.places <- struct{}{} // only announce fills them, and it saw n free
		u.q.s.undertakers.Go(func() { u.call(task, rules, l, got.Deadline) })
	}
	return len(got.Letters) == n
}

// call calls OnDead for one letter and tells Redis whether that was enough.
func (u *undertaker) call(task string, rules *DeadLetterOptions, l store.Letter, deadline int64) {
	s := u.q.s
	ctx, cancel := context.WithTimeout(s.after, rules.OnDeadTimeout)
	err := errors.New("the hook called runtime.Goexit")
	defer func() {
		<-u.places
		poke(u.owed)
	}()
	defer func() {
		cancel()
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
		if err != nil {
			s.log.Error("redrive: OnDead failed and will be called again", "queue", u.q.name, "task", task, "id", l.ID, "error", errorText(err))
		}
		// Not s.after: what was heard should be known even at the end.
		end, cancel := context.WithTimeout(context.Background(), sendTimeout)
		defer cancel()
		u.ending.Lock()
		defer u.ending.Unlock()
		if e := u.q.store.EndHook(end, task, l, deadline, err == nil); e != nil {
			s.log.Warn("redrive: OnDead may be called again: its end was not written", "queue", u.q.name, "task", task, "id", l.ID, "error", e)
		}
	}()
	err = rules.OnDead(ctx, letterEntry(u.q.name, task, l))
}

// try makes one call until Redis answers, or the session ends. What sending again
// does not mend is left to the next look.
func (u *undertaker) try(call func(context.Context) error) error {
	s := u.q.s
	retry := newReconnect()
	for {
		ctx, cancel := context.WithTimeout(s.after, sendTimeout)
		err := call(ctx)
		cancel()
		if err == nil {
			return nil
		}
		switch {
		case s.after.Err() != nil:
			return err
		case !store.Transient(err):
			s.log.Error("redrive: dead letters cannot be looked after", "queue", u.q.name, "error", err)
			return err
		}
		u.q.keeper.lost(err)
		if !sleep(s.after, retry.NextBackOff()) {
			return err
		}
	}
}

// retain drops letters: of tasks that have got some, soon, and of all tasks once in
// a lease, as letters age by themselves.
func (u *undertaker) retain() {
	s := u.q.s
	timer := time.NewTimer(rand.N(s.opts.Lease))
	defer timer.Stop()
	for {
		select {
		case <-s.quit:
			u.trimGrown()
			return
		case <-u.full:
			u.trimGrown()
			sleep(s.after, trimEvery)
		case <-timer.C:
			u.trimAll()
			timer.Reset(s.opts.Lease)
		}
	}
}

func (u *undertaker) trimGrown() {
	u.mu.Lock()
	grown := u.grown
	u.grown = make(map[string]bool)
	u.mu.Unlock()
	for task := range grown {
		u.trim(task)
	}
}

func (u *undertaker) trimAll() {
	for after := ""; ; {
		var tasks []string
		if err := u.try(func(ctx context.Context) (err error) {
			tasks, err = u.q.store.DeadTasks(ctx, after, store.MaxBatch)
			return err
		}); err != nil {
			return
		}
		for _, task := range tasks {
			u.trim(task)
		}
		if len(tasks) < store.MaxBatch {
			return
		}
		after = tasks[len(tasks)-1]
	}
}

// trim drops what exceeds the retention of a task, in bounded batches, and reports
// each.
func (u *undertaker) trim(task string) {
	s := u.q.s
	rules := s.mux.table.deadLetter(task)
	if rules.MaxCount == KeepAll && rules.MaxAge == KeepForever {
		return
	}
	for left := 1; left > 0; {
		u.trims.Next()
		var dropped int
		if err := u.try(func(ctx context.Context) (err error) {
			dropped, left, err = u.q.store.TrimLetters(ctx, u.trims, task, rules.MaxCount, rules.MaxAge)
			return err
		}); err != nil {
			return
		}
		if dropped > 0 {
			u.dropped(task, rules, dropped)
		}
	}
}

func (u *undertaker) dropped(task string, rules *DeadLetterOptions, n int) {
	s := u.q.s
	s.log.Warn("redrive: dropped dead letters over the retention of their task", "queue", u.q.name, "task", task, "dropped", n)
	if rules.OnDrop == nil {
		return
	}
	defer func() {
		if r := recover(); r != nil {
			s.log.Error("redrive: OnDrop panicked", "queue", u.q.name, "task", task, "panic", r)
		}
	}()
	ctx, cancel := context.WithTimeout(s.after, dropTimeout)
	defer cancel()
	rules.OnDrop(ctx, u.q.name, task, n)
}
