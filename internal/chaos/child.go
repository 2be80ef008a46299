package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// childEnv makes this program a worker or producer process of another run of itself.
const childEnv = "REDRIVE_CHAOS_CHILD"

// childOptions is what a child is told.
type childOptions struct {
	Side, Role, Name, Dir, Addr string
	Seed                        uint64
	Jobs                        int
	Index, Producers            int   // of a producer
	Start, Duration             int64 // of the production, by now
}

func (o *childOptions) load() workload { return workload{o.Seed, o.Jobs} }

// child runs the process that the environment asks for, if it does.
func child() (is bool, err error) {
	text := os.Getenv(childEnv)
	if text == "" {
		return false, nil
	}
	var o childOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return true, fmt.Errorf("%s: %w", childEnv, err)
	}
	s, err := sideNamed(o.Side)
	if err != nil {
		return true, err
	}
	ledger, err := openJournal(o.Dir, o.Name)
	if err != nil {
		return true, err
	}
	if o.Role == roleProducer {
		return true, producerProcess(o, s, ledger)
	}
	return true, workerProcess(o, s, ledger)
}

const (
	roleWorker   = "w"
	roleProducer = "p"
)

// A process is one child. It writes its complaints to a file beside its ledger.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and been waited for
}

func spawn(o childOptions) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(o.Dir, o.Name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	p := &process{name: o.Name, cmd: exec.Command(self), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// status is how an ended process ended.
func (p *process) status() syscall.WaitStatus {
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
