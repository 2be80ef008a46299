package redrive

import (
	"context"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// A watch tells receipts of one queue when their job may have ended. It holds a
// subscription while somebody waits. Its goroutine is started with the
// subscription and ends when the last waiter closes that.
type watch struct {
	q *store.Queue

	mu      sync.Mutex
	waiters map[string]map[chan struct{}]struct{}
	sub     *redis.PubSub
}

func newWatch(q *store.Queue) *watch {
	return &watch{q: q, waiters: make(map[string]map[chan struct{}]struct{})}
}

// job returns a channel that receives when the job may have ended, and a
// function to stop watching.
func (w *watch) job(id string) (ended <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiters[id] == nil {
		w.waiters[id] = make(map[chan struct{}]struct{})
	}
	w.waiters[id][c] = struct{}{}
	if w.sub == nil {
		w.sub = w.q.Subscribe(context.Background())
		go w.listen(w.sub)
	}
	return c, func() { w.leave(id, c) }
}

func (w *watch) leave(id string, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiters[id], c)
	if len(w.waiters[id]) == 0 {
		delete(w.waiters, id)
	}
	if len(w.waiters) == 0 {
		_ = w.sub.Close() // the goroutine's Receive fails, and it ends
		w.sub = nil
	}
}

// listen passes messages on until the subscription is closed. After each
// confirmation of the subscription everybody looks: an end may have gone unheard.
func (w *watch) listen(sub *redis.PubSub) {
	retry := newReconnect()
	for {
		msg, err := sub.Receive(context.Background())
		w.mu.Lock()
		if w.sub != sub {
			w.mu.Unlock()
			return
		}
		switch m := msg.(type) {
		case *redis.Message:
			for id := range strings.SplitSeq(m.Payload, " ") {
				w.wake(id)
			}
		case *redis.Subscription:
			retry.Reset()
			for id := range w.waiters {
				w.wake(id)
			}
		}
		w.mu.Unlock()
		if err != nil {
			sleep(context.Background(), retry.NextBackOff())
		}
	}
}

// wake signals the waiters of one job; w.mu is held.
func (w *watch) wake(id string) {
	for c := range w.waiters[id] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
