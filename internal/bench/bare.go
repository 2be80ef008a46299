package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// bare makes the Redis calls that redrive makes, in batches of the same size,
// without a job in sight: no handler, no decoding, no bookkeeping. What it
// reaches is the ceiling for redrive on this machine.
type bare struct {
	rdb *redis.Client
	q   *store.Queue
}

func newBare(addr string) *bare {
	rdb := redis.NewClient(&redis.Options{Addr: addr, PoolSize: 4, MaxRetries: -1, ContextTimeoutEnabled: true})
	return &bare{rdb: rdb, q: store.Open(rdb, store.DefaultPrefix, queueName)}
}

func (b *bare) close() { _ = b.rdb.Close() }

// drain claims into free slots and finishes what was claimed, with one call of
// each kind in flight, until n jobs are done. It returns jobs per second.
func (b *bare) drain(n, slots int) float64 {
	const worker = "bare"
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	_, err := b.q.Beat(ctx, worker, time.Hour)
	fatal(err)
	free := make(chan int, slots)
	claimed := make(chan []store.Done, slots)
	free <- slots
	var failed atomic.Pointer[error]
	var first time.Time
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(claimed)
		for call, got := int64(0), 0; got < n; {
			var k int
			select {
			case k = <-free:
				k = drainAll(k, free)
			case <-ctx.Done():
				return
			}
			call++
			c, err := b.q.Claim(ctx, store.ClaimCall{Worker: worker, Call: call, N: k})
			if err != nil || len(c.Jobs) == 0 {
				failed.Store(new(fmt.Errorf("bare claim: %d of %d jobs: %w", got, n, err)))
				return
			}
			if first.IsZero() {
				first = time.Now()
			}
			done := make([]store.Done, len(c.Jobs))
			for i, j := range c.Jobs {
				done[i].Owned = store.Owned{ID: j.ID, Token: j.Token}
			}
			got += len(c.Jobs)
			if unused := k - len(c.Jobs); unused > 0 {
				free <- unused
			}
			claimed <- done
		}
	})
	var last time.Time
	wg.Go(func() {
		calls := 0
		for done := range claimed {
			for more := true; more && len(done) < store.MaxBatch; {
				select {
				case d, ok := <-claimed:
					done, more = append(done, d...), ok
				default:
					more = false
				}
			}
			calls++
			by := store.Settler{Worker: worker, Call: fmt.Sprint(calls)}
			if _, err := b.q.Finish(ctx, by, store.Succeeded, done); err != nil {
				failed.Store(&err)
				cancel()
				return
			}
			free <- len(done)
			last = time.Now()
		}
	})
	wg.Wait()
	if err := failed.Load(); err != nil {
		fatal(*err)
	}
	return float64(n) / last.Sub(first).Seconds()
}

// drainAll adds up what waits in c.
func drainAll(sum int, c chan int) int {
	for {
		select {
		case n := <-c:
			sum += n
		default:
			return sum
		}
	}
}

// enqueue sends batches of the given size, one in flight, for the time given.
func (b *bare) enqueue(batch int, d time.Duration) (jobs int, rate float64) {
	env := append([]byte(`{"v":1,"task":"`+taskName+`","at":1753437600000,"args":`), encoded(body("", payloadSize))...)
	env = append(env, '}')
	jobsOf := make([]store.NewJob, batch)
	start := time.Now()
	for call := int64(1); time.Since(start) < d; call++ {
		for i := range jobsOf {
			jobsOf[i] = store.NewJob{ID: fmt.Sprintf("0198-bare-%012d-%013d", call, i), Envelope: env}
		}
		_, err := b.q.Enqueue(background, "bare", call, false, jobsOf)
		fatal(err)
		jobs += batch
	}
	return jobs, float64(jobs) / time.Since(start).Seconds()
}
