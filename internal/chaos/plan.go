package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// The kinds of faults.
const (
	faultKill       = "kill"       // kill -9 of a worker
	faultStop       = "stop"       // SIGSTOP of a worker, longer than the lease, then SIGCONT
	faultTerm       = "term"       // SIGTERM of a worker
	faultBlackhole  = "blackhole"  // a worker's bytes are held back, in both directions
	faultRefuse     = "refuse"     // a worker is cut off and its connections are refused
	faultCut        = "cut"        // a worker's connections are closed
	faultDrop       = "drop"       // Redis runs a script of a worker, and the answer is lost
	faultRestart    = "restart"    // kill -9 of Redis, and its start a while later
	faultFlush      = "flush"      // SCRIPT FLUSH
	faultClientKill = "clientkill" // CLIENT KILL of all connections
	faultOrphan     = "orphan"     // kill -9 of a producer
	faultMute       = "mute"       // a producer's bytes are held back, longer than it waits
	faultUnheard    = "unheard"    // Redis runs an enqueue, and the answer is lost

	// Not the nemesis's doing: the machine's.
	faultStall      = "stall"      // a worker did not get to run
	faultRedisStall = "redisstall" // Redis did not answer
)

// event is one fault to come.
type event struct {
	at   time.Duration // since the start
	lane string
	kind string
	hold time.Duration // how long it lasts, if it lasts
}

// A plan is what the nemesis is going to do: one sequence of faults for each worker,
// each producer and Redis. It follows from the seed alone.
type plan []event

const redisLane = "redis"

// often says how many seconds there are, per lane, between two faults of a kind, and
// how long one holds.
type often struct {
	kind       string
	every      float64
	hold, more time.Duration // hold + up to more
	least      int
}

var (
	workerFaults = []often{
		{kind: faultKill, every: 9.5, hold: 50 * time.Millisecond, more: 300 * time.Millisecond},
		{kind: faultStop, every: 35, hold: redriveLease + 300*time.Millisecond, more: 1500 * time.Millisecond},
		{kind: faultTerm, every: 35, hold: 50 * time.Millisecond, more: 200 * time.Millisecond},
		{kind: faultBlackhole, every: 35, hold: 200 * time.Millisecond, more: 3 * time.Second},
		{kind: faultRefuse, every: 50, hold: 100 * time.Millisecond, more: 3 * time.Second},
		{kind: faultCut, every: 20},
		{kind: faultDrop, every: 9},
	}
	producerFaults = []often{
		{kind: faultOrphan, every: 30, hold: 100 * time.Millisecond, more: 300 * time.Millisecond, least: 1},
		{kind: faultMute, every: 30, hold: enqueueTimeout + time.Second, more: time.Second, least: 1},
		{kind: faultUnheard, every: 7},
	}
	redisFaults = []often{
		{kind: faultRestart, every: 50, hold: 200 * time.Millisecond, more: 1500 * time.Millisecond, least: 3},
		{kind: faultFlush, every: 8},
		{kind: faultClientKill, every: 8},
	}
)

// newPlan spreads faults over most of the run: they begin when workers are at work,
// and end while there is work left.
func newPlan(seed uint64, workers, producers int, length time.Duration) plan {
	var p plan
	lane := func(name string, faults []often, stream uint64) {
		r := rand.New(rand.NewPCG(seed, 1<<32+stream))
		var events []event
		for _, f := range faults {
			for range max(f.least, int(length.Seconds()/f.every)) {
				e := event{lane: name, kind: f.kind, hold: f.hold}
				if f.more > 0 {
					e.hold += time.Duration(r.Int64N(int64(f.more)))
				}
				events = append(events, e)
			}
		}
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		from, to := length/20, length*19/20
		for i := range events {
			events[i].at = from + time.Duration((float64(i)+r.Float64())/float64(len(events))*float64(to-from))
		}
		p = append(p, events...)
	}
	for i := range workers {
		lane(fmt.Sprint(roleWorker, i), workerFaults, uint64(i))
	}
	for i := range producers {
		lane(fmt.Sprint(roleProducer, i), producerFaults, 100+uint64(i))
	}
	lane(redisLane, redisFaults, 200)
	slices.SortStableFunc(p, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return p
}

// lane returns the events of one lane, in order.
func (p plan) lane(name string) []event {
	return slices.DeleteFunc(slices.Clone(p), func(e event) bool { return e.lane != name })
}

// counts says how many faults of each kind are planned.
func (p plan) counts() map[string]int {
	n := make(map[string]int)
	for _, e := range p {
		n[e.kind]++
	}
	return n
}

func (p plan) String() string {
	var b strings.Builder
	for _, e := range p {
		_, _ = fmt.Fprintf(&b, "%10.3fs %-6s %-10s %v\n", e.at.Seconds(), e.lane, e.kind, e.hold)
	}
	return b.String()
}
