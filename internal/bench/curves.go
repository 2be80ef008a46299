package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// A point is one place on a curve of one side.
type point struct {
	curve, x, side string
	rounds         []figures
}

func (p *point) median(metric string) float64 {
	var v []float64
	for _, f := range p.rounds {
		v = append(v, f[metric])
	}
	return median(v)
}

// maxFill bounds the payload bytes that wait in Redis.
const maxFill = 400 << 20

// A curve varies one thing and leaves the rest at 50 slots, one queue, one
// process, 100 bytes.
type curve struct {
	title string
	xs    []int
	label func(x int) string
	run   func(b *bench, s side, x, n int) figures
	most  func(x int) int // bounds the jobs of a run; may be nil
}

func plain(x int) string { return thousands(x) }

func curvesOf(large int) []curve {
	return []curve{
		{
			title: "slots", xs: []int{1, 10, 50, 200, 1000}, label: plain,
			run: func(b *bench, s side, x, n int) figures { return b.work(s, "", n, payloadSize, oneQueue(x)) },
		},
		{
			title: "payload, KB", xs: []int{100, 1_000, 10_000, 100_000},
			label: func(x int) string { return strconv.FormatFloat(float64(x)/1000, 'f', -1, 64) },
			run: func(b *bench, s side, x, n int) figures {
				o := oneQueue(50)
				o.decode = true // at 100 KB the decoding is most of a job
				return b.work(s, "", n, x, o)
			},
			most: func(x int) int { return maxFill / x },
		},
		{
			title: "queues of a worker", xs: []int{1, 4, 16}, label: plain,
			run: func(b *bench, s side, x, n int) figures {
				o := workOptions{slots: 50}
				for i := range x {
					o.queues = append(o.queues, queueName+strconv.Itoa(i))
				}
				return b.work(s, "", n, payloadSize, o)
			},
		},
		{
			title: "jobs waiting", xs: []int{20_000, large}, label: plain,
			run: func(b *bench, s side, x, n int) figures {
				if missing := x - s.left(queueName); missing > x/10 {
					b.settled()
					s.fill(queueName, x, payloadSize, 0)
				} else if missing > 0 {
					s.fill(queueName, missing, payloadSize, 0)
				}
				return b.drainFilled(s, "", n, oneQueue(50))
			},
			most: func(x int) int { return x * 9 / 10 },
		},
		{
			title: "jobs delayed", xs: []int{1000, large}, label: plain,
			run: func(b *bench, s side, x, n int) figures {
				b.settled()
				s.fill(queueName, x, payloadSize, time.Hour)
				s.fill(queueName, n, payloadSize, 0)
				return b.drainFilled(s, "", n, oneQueue(50))
			},
		},
		{
			title: "worker processes", xs: []int{1, 2, 4}, label: plain,
			run: func(b *bench, s side, x, n int) figures { return b.processes(s, x, n) },
		},
	}
}

// curves draws every curve for both sides, which take turns in each round.
func (b *bench) curves(rounds int) []point {
	large := 1_000_000
	if b.quick {
		large = 200_000
	}
	rounds = min(rounds, 3)
	var points []point
	for _, c := range curvesOf(large) {
		for _, x := range c.xs {
			b.fresh()
			at := len(points)
			for _, s := range b.sides() {
				points = append(points, point{curve: c.title, x: c.label(x), side: s.name()})
			}
			n := make(map[string]int)
			for i := range rounds {
				fmt.Fprintf(os.Stderr, "\r\033[K%s %s, round %d of %d", c.title, c.label(x), i+1, rounds)
				for j, s := range b.sides() {
					p := &points[at+j]
					if n[p.side] == 0 {
						n[p.side] = b.size(c, s, x)
					}
					p.rounds = append(p.rounds, c.run(b, s, x, n[p.side]))
				}
			}
		}
	}
	fmt.Fprint(os.Stderr, "\r\033[K")
	return points
}

// size finds how many jobs a run of a curve takes.
func (b *bench) size(c curve, s side, x int) int {
	most := 1 << 30
	if c.most != nil {
		most = c.most(x)
	}
	rate := c.run(b, s, x, min(most, 2000))["rate"]
	return min(most, max(1000, int(rate*b.target.Seconds())))
}

func curveTable(w io.Writer, points []point) {
	_, _ = fmt.Fprintln(w)
	rows := [][]string{{"curve", "at", "redrive, jobs/s", "asynq, jobs/s", "ratio",
		"redrive, Redis µs/job", "asynq, Redis µs/job", "redrive, client µs/job", "asynq, client µs/job"}}
	for i := 0; i+1 < len(points); i += 2 {
		r, a := &points[i], &points[i+1]
		rows = append(rows, []string{r.curve, r.x, quantity(r.median("rate")), quantity(a.median("rate")),
			quantity(r.median("rate")/a.median("rate")) + "×",
			quantity(r.median("redis_cpu")), quantity(a.median("redis_cpu")),
			quantity(r.median("client_cpu")), quantity(a.median("client_cpu"))})
	}
	grid(w, rows)
}
