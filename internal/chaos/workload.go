package main

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// How a handler returns.
type outcome int64

const (
	succeeds  outcome = iota
	fails             // an error that is retried
	failsDead         // an error that is permanent
	cancelled         // its context was done
)

// A workload says, by its seed, what every job is.
type workload struct {
	seed uint64
	jobs int
}

// job is one job, numbered from 0.
type job struct {
	n int
	// outcome is how its first attempt ends, if nothing interferes: a job that fails
	// does so once, one that is permanent is a dead letter.
	outcome outcome
	// delay is how long it waits, work how long its handler runs.
	delay, work time.Duration
	payload     string
}

// job returns job n: most do nothing; 1 in 50 fails once, 1 in 330 for good, 1 in
// 100 is delayed, 1 in 20 works for milliseconds, and 1 in 160 so long that kills,
// stops and shutdowns catch it at work.
func (w workload) job(n int) job {
	r := rand.New(rand.NewPCG(w.seed, uint64(n)))
	j := job{n: n}
	kind, share, pad := r.IntN(10_000), r.Float64(), r.IntN(180)
	switch {
	case kind < 200:
		j.outcome = fails
	case kind < 230:
		j.outcome = failsDead
	case kind < 330:
		j.delay = time.Duration(200+2800*share) * time.Millisecond
	case kind < 830:
		j.work = time.Duration(1+9*share) * time.Millisecond
	case kind < 890:
		j.work = time.Duration(300+2700*share) * time.Millisecond
	}
	j.payload = `{"n":` + strconv.Itoa(n) + `,"pad":"` + strings.Repeat("x", pad) + `"}`
	return j
}

func jobID(n int) string { return fmt.Sprintf("j%08d", n) }

// jobNumber is the inverse of jobID, or -1.
func jobNumber(id string) int {
	digits, ok := strings.CutPrefix(id, "j")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return -1
	}
	return n
}

func hashOf[T string | []byte](payload T) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(payload))
	return int64(h.Sum32())
}
