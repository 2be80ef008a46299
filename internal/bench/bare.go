package main

import (
	"context"
	"fmt"
	"strconv"
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

// drain claims jobs into all slots, and then ends them and claims the next in one call,
// until n jobs are done. It returns jobs per second.
func (b *bare) drain(n, slots int) float64 {
	const worker = "bare"
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	_, err := b.q.Beat(ctx, worker, time.Hour)
	fatal(err)
	claim := store.ClaimCall{Worker: worker, Call: 1, N: slots}
	c, err := b.q.Claim(ctx, claim)
	fatal(err)
	start, ended := time.Now(), 0
	var done []store.Done
	for len(c.Jobs) > 0 {
		done = doneOf(done[:0], c.Jobs)
		claim.Call++
		by := store.Settler{Worker: worker, Call: strconv.FormatInt(claim.Call, 10), Next: &claim}
		s, err := b.q.Finish(ctx, by, store.Succeeded, done)
		fatal(err)
		ended += len(c.Jobs)
		c = s.Claimed
	}
	if ended != n {
		fatal(fmt.Errorf("bare Redis ended %d of %d jobs", ended, n))
	}
	return float64(n) / time.Since(start).Seconds()
}

// pickup measures a job's way to an idle worker: the enqueue, the bell that rings for
// it, the claim.
func (b *bare) pickup(samples int) (took []float64) {
	const worker = "bare"
	_, err := b.q.Beat(background, worker, time.Hour)
	fatal(err)
	type claimed struct {
		jobs []store.ClaimedJob
		at   time.Time
		err  error
	}
	got := make(chan claimed)
	for call := int64(1); call <= int64(samples); call++ {
		go func() {
			_, err := b.q.Listen(background, time.Minute)
			var c store.Claimed
			if err == nil {
				c, err = b.q.Claim(background, store.ClaimCall{Worker: worker, Call: call, N: 1})
			}
			got <- claimed{c.Jobs, time.Now(), err}
		}()
		time.Sleep(15 * time.Millisecond)
		sent := time.Now()
		_, err := b.q.Enqueue(background, "bare", call, false, bareJobs(call, 1))
		fatal(err)
		c := <-got
		fatal(c.err)
		took = append(took, ms(c.at.Sub(sent)))
		by := store.Settler{Worker: worker, Call: strconv.FormatInt(call, 10)}
		_, err = b.q.Finish(background, by, store.Succeeded, doneOf(nil, c.jobs))
		fatal(err)
	}
	return took
}

// enqueue sends batches of the given size, one in flight, for the time given.
func (b *bare) enqueue(batch int, d time.Duration) (jobs int, rate float64) {
	start := time.Now()
	for call := int64(1); time.Since(start) < d; call++ {
		_, err := b.q.Enqueue(background, "bare", call, false, bareJobs(call, batch))
		fatal(err)
		jobs += batch
	}
	return jobs, float64(jobs) / time.Since(start).Seconds()
}

// bareJobs makes the jobs of a call.
func bareJobs(call int64, n int) []store.NewJob {
	jobs := make([]store.NewJob, n)
	for i := range jobs {
		jobs[i] = store.NewJob{ID: fmt.Sprintf("0198-bare-%012d-%013d", call, i), Envelope: bareEnvelope}
	}
	return jobs
}

var bareEnvelope = []byte(`{"v":1,"task":"` + taskName + `","at":1753437600000,"args":` + string(encoded(body("", payloadSize))) + `}`)

// doneOf says of claimed jobs that they are done, in the room of done.
func doneOf(done []store.Done, jobs []store.ClaimedJob) []store.Done {
	for _, j := range jobs {
		done = append(done, store.Done{Owned: store.Owned{ID: j.ID, Token: j.Token}})
	}
	return done
}
