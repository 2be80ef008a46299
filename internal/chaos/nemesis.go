package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redrive-go/redrive/internal/faultnet"
)

// A slot is the place of a worker or a producer: one process after another, all
// behind one proxy. Once the nemesis is at work, its lane alone uses the slot.
type slot struct {
	run   *run
	lane  string
	opts  childOptions
	proxy *faultnet.Proxy
	count int
	cur   *process
}

// next starts the slot's next process.
func (s *slot) next() (err error) {
	s.count++
	o := s.opts
	o.Name = fmt.Sprintf("%s-%03d", s.lane, s.count)
	s.cur, err = spawn(o)
	return err
}

// breath is the least time between two faults of a lane. One that is late, since the
// machine is slow, must not have its faults come in a heap: nobody would live for a lease.
const breath = time.Second

// execute runs the events of one lane, one after the other.
func (r *run) execute(ctx context.Context, events []event, do func(event) error) error {
	for _, e := range events {
		select {
		case <-time.After(-ago(r.start + int64(e.at))):
		case <-ctx.Done():
			return nil
		}
		if err := do(e); err != nil {
			return fmt.Errorf("%s of %s: %w", e.kind, e.lane, err)
		}
		time.Sleep(breath)
	}
	return nil
}

// shown writes down a fault, and whether it is shown to have happened.
func (r *run) shown(kind, target string, from int64, happened bool, details string) {
	n := int64(0)
	if happened {
		n = 1
	}
	r.ledger.write(lineFault, strings.TrimSpace(kind+" "+target+" "+details), from, now(), n)
}

// strike performs a fault on a worker or a producer.
func (s *slot) strike(e event) error {
	if s.cur.ended() {
		if s.opts.Role == roleProducer && s.cur.status().ExitStatus() == 0 {
			return nil // it has enqueued everything
		}
		return fmt.Errorf("%s has ended by itself: %v", s.cur.name, s.cur.cmd.ProcessState)
	}
	s.awaitConnection()
	if slices.Contains([]string{faultStop, faultBlackhole, faultRefuse}, e.kind) {
		s.run.away <- struct{}{}
		defer func() { <-s.run.away }()
	}
	begun := now()
	switch e.kind {
	case faultKill, faultOrphan:
		if err := s.cur.signal(syscall.SIGKILL); err != nil {
			return err
		}
		<-s.cur.done
		s.run.shown(e.kind, s.cur.name, begun, s.cur.status().Signal() == syscall.SIGKILL, "")
		time.Sleep(e.hold)
		return s.next()
	case faultTerm:
		if err := s.cur.signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-s.cur.done:
		case <-time.After(shutdownTimeout + upWithin):
			return errors.New("does not end")
		}
		s.run.shown(e.kind, s.cur.name, begun, s.cur.status().ExitStatus() == 0, "")
		time.Sleep(e.hold)
		return s.next()
	case faultStop:
		if err := s.cur.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		time.Sleep(e.hold)
		stopped := isStopped(s.cur.cmd.Process.Pid)
		s.run.shown(e.kind, s.cur.name, begun, stopped, "")
		if err := s.cur.signal(syscall.SIGCONT); err != nil {
			return err
		}
		time.Sleep(gap) // its ledger tells of the gap before the next fault comes
	case faultBlackhole, faultMute:
		open := s.proxy.Connections()
		s.proxy.Blackhole()
		time.Sleep(e.hold)
		s.proxy.Heal()
		s.run.shown(e.kind, s.cur.name, begun, open > 0, fmt.Sprint(open, " connections"))
	case faultRefuse:
		open := s.proxy.Connections()
		s.proxy.Down()
		time.Sleep(e.hold)
		s.proxy.Up()
		s.run.shown(e.kind, s.cur.name, begun, open > 0, fmt.Sprint(open, " connections"))
	case faultCut:
		open := s.proxy.Connections()
		s.proxy.Cut()
		s.run.shown(e.kind, s.cur.name, begun, open > 0, fmt.Sprint(open, " connections"))
	case faultDrop, faultUnheard:
		rule := s.proxy.DropReply(faultnet.Scripts(), 1)
		select {
		case <-rule.Fired():
		case <-time.After(5 * time.Second):
		}
		rule.Remove()
		s.run.shown(e.kind, s.cur.name, begun, rule.Hits() > 0, "")
	default:
		return errors.New("no such fault")
	}
	return nil
}

// awaitConnection waits until the process has reached Redis, for a while: a fault of
// one that has only just started would hit nothing.
func (s *slot) awaitConnection() {
	for range 200 {
		if s.proxy.Connections() > 0 || s.cur.ended() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// isStopped reads the state of a process where /proc has it.
func isStopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && strings.HasPrefix(rest, "T")
}

// strikeRedis performs a fault on Redis.
func (r *run) strikeRedis(e event) error {
	ctx, cancel := context.WithTimeout(context.Background(), upWithin)
	defer cancel()
	begun := now()
	switch e.kind {
	case faultRestart:
		before, err := r.server.info(ctx, "server", "run_id")
		if err != nil {
			return err
		}
		begun = now()
		r.server.kill()
		time.Sleep(e.hold)
		up, err := r.server.start()
		if err != nil {
			return err
		}
		after, err := r.server.info(ctx, "server", "run_id")
		if err != nil {
			return err
		}
		happened := int64(0)
		if after != before {
			happened = 1
		}
		r.ledger.write(lineFault, faultRestart+" *", begun, up, happened)
	case faultFlush:
		known, err := r.server.number(ctx, "memory", "number_of_cached_scripts")
		if err != nil {
			return err
		}
		if err := r.server.admin.ScriptFlush(ctx).Err(); err != nil {
			return err
		}
		r.shown(e.kind, "*", begun, known > 0, fmt.Sprint(known, " scripts"))
	case faultClientKill:
		killed, err := r.server.admin.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Result()
		if err != nil {
			return err
		}
		r.shown(e.kind, "*", begun, killed > 0, fmt.Sprint(killed, " connections"))
	default:
		return errors.New("no such fault")
	}
	return nil
}
