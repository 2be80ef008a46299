package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/faultnet"
)

// settings is a run as it was asked for. With the ledgers and the dump beside it, it
// is all that the checker reads.
type settings struct {
	Side      string
	Seed      uint64
	Jobs      int
	Workers   int
	Producers int
	Length    time.Duration // of the production
	Tail      time.Duration // bounds the wait for the rest
	Planned   map[string]int
	// Configuration is what the side says of itself.
	Configuration string
}

// Files of a run, besides the ledgers and the log of each process.
const (
	settingsFile = "run.json"
	planFile     = "plan.txt"
	dumpFile     = "dump.txt"
	reportFile   = "report.md"
	nemesisName  = "nemesis"
)

// A run is one side's passage through the chaos.
type run struct {
	settings
	dir    string
	side   side
	plan   plan
	start  int64
	server *server
	ledger *journal // of the nemesis
	slots  []*slot
	// away has room for half of the workers: no more are stopped or cut off at once.
	away chan struct{}
}

// execute performs a run and leaves its evidence in dir.
func execute(ctx context.Context, s settings, dir string) (err error) {
	r := &run{settings: s, dir: dir, away: make(chan struct{}, max(1, s.Workers/2))}
	if r.side, err = sideNamed(s.Side); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r.plan = newPlan(s.Seed, s.Workers, s.Producers, s.Length)
	r.Planned, r.Configuration = r.plan.counts(), r.side.settings()
	err = errors.Join(
		writeSettings(dir, r.settings),
		os.WriteFile(filepath.Join(dir, planFile), []byte(r.plan.String()), 0o644),
	)
	if err != nil {
		return err
	}
	if r.ledger, err = openJournal(dir, nemesisName); err != nil {
		return err
	}
	if r.server, err = startServer(filepath.Join(dir, "redis")); err != nil {
		return err
	}
	defer r.server.stop()
	defer r.end()
	if err := r.begin(); err != nil {
		return err
	}
	return r.endure(ctx)
}

// begin starts the processes, each behind a proxy.
func (r *run) begin() error {
	r.start = now()
	add := func(role string, i int) error {
		s := &slot{run: r, lane: fmt.Sprint(role, i), proxy: faultnet.New(nil, r.server.addr, r.Seed+uint64(len(r.slots)))}
		r.slots = append(r.slots, s)
		s.opts = childOptions{
			Side: r.Side, Role: role, Dir: r.dir, Addr: s.proxy.Addr(), Seed: r.Seed, Jobs: r.Jobs,
			Index: i, Producers: r.Producers, Start: r.start, Duration: int64(r.Length),
		}
		return s.next()
	}
	for i := range r.Workers {
		if err := add(roleWorker, i); err != nil {
			return err
		}
	}
	for i := range r.Producers {
		if err := add(roleProducer, i); err != nil {
			return err
		}
	}
	return nil
}

// endure lets the nemesis do its work, waits for the rest of the jobs, and ends the
// workers in good order.
func (r *run) endure(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching, stopWatching := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { watchGaps(watching, r.ledger) })
	watch.Go(func() { r.server.watchStalls(watching, r.ledger) })
	defer watch.Wait()
	defer stopWatching()

	var lanes sync.WaitGroup
	for _, s := range r.slots {
		lanes.Go(func() { fail(cancel, r.execute(ctx, r.plan.lane(s.lane), s.strike)) })
	}
	lanes.Go(func() { fail(cancel, r.execute(ctx, r.plan.lane(redisLane), r.strikeRedis)) })
	lanes.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, s := range r.slots[r.Workers:] {
		select {
		case <-s.cur.done:
		case <-time.After(r.Length + r.Tail):
			return fmt.Errorf("producer %s does not end", s.cur.name)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if code := s.cur.status().ExitStatus(); code != 0 {
			return fmt.Errorf("producer %s ended with status %d: see its log", s.cur.name, code)
		}
	}
	if err := r.drain(ctx); err != nil {
		return err
	}
	for _, s := range r.slots[:r.Workers] {
		begun := now()
		if err := s.cur.signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("%s has ended by itself: %w", s.cur.name, err)
		}
		select {
		case <-s.cur.done:
		case <-time.After(shutdownTimeout + upWithin):
			return fmt.Errorf("worker %s does not end", s.cur.name)
		}
		r.shown("end", s.cur.name, begun, true, "")
	}
	return r.dump()
}

func fail(cancel context.CancelCauseFunc, err error) {
	if err != nil {
		cancel(err)
	}
}

// drain waits until no job waits or runs, or the time is up: the checker finds what
// is left.
func (r *run) drain(ctx context.Context) error {
	deadline := now() + int64(r.Tail)
	for now() < deadline {
		left, err := r.side.left(ctx, r.server.admin)
		if err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (r *run) dump() error {
	rdb := redis.NewClient(&redis.Options{Addr: r.server.addr, ReadTimeout: time.Minute})
	defer func() { _ = rdb.Close() }()
	f, err := os.Create(filepath.Join(r.dir, dumpFile))
	if err != nil {
		return err
	}
	return errors.Join(r.side.dump(context.Background(), rdb, f), f.Close())
}

// end kills what still runs.
func (r *run) end() {
	for _, s := range r.slots {
		if s.cur != nil && !s.cur.ended() {
			_ = s.cur.signal(syscall.SIGKILL)
			<-s.cur.done
		}
		s.proxy.Close()
	}
}

func writeSettings(dir string, s settings) error {
	text, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, settingsFile), append(text, '\n'), 0o644)
}
