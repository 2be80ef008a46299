package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

// childEnv makes this program a worker process of another run of itself.
const childEnv = "REDRIVE_BENCH_WORKER"

// order is what a child is told; the answer is a deed.
type order struct {
	Side, Addr string
	Slots      int
	Queue      string
	Work       time.Duration // that each job takes
}

type deed struct {
	Jobs        int64
	First, Last int64 // ns since the epoch
	CPU         float64
}

// child waits for a line, works until its input ends, and says what it did.
func child() int {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &o); err != nil {
		fmt.Fprintln(os.Stderr, "bench: child:", err)
		return 1
	}
	var s side = &redriveSide{o.Addr}
	if o.Side != s.name() {
		s = &asynqSide{o.Addr}
	}
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return 1
	}
	var jobs, first, last atomic.Int64
	stop := s.start(workOptions{slots: o.Slots, queues: []string{o.Queue}, job: func([]byte) {
		time.Sleep(o.Work)
		now := time.Now().UnixNano()
		first.CompareAndSwap(0, now)
		last.Store(now)
		jobs.Add(1)
	}})
	_, _ = io.Copy(io.Discard, in)
	stop()
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	if err := json.NewEncoder(os.Stdout).Encode(deed{jobs.Load(), first.Load(), last.Load(),
		float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e3}); err != nil {
		return 1
	}
	return 0
}

// processes measures how fast k worker processes of 50 slots each drain n jobs.
func (b *bench) processes(s side, k, n int) figures {
	b.settled()
	s.fill(queueName, n, payloadSize, 0)
	self, err := os.Executable()
	fatal(err)
	text, err := json.Marshal(order{Side: s.name(), Addr: b.srv.addr, Slots: 50, Queue: queueName})
	fatal(err)
	type kid struct {
		cmd *exec.Cmd
		in  io.WriteCloser
		out io.Reader
	}
	kids := make([]kid, k)
	for i := range kids {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"="+string(text))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		fatal(err)
		out, err := cmd.StdoutPipe()
		fatal(err)
		fatal(cmd.Start())
		kids[i] = kid{cmd, in, out}
	}
	before := b.srv.usage()
	for _, c := range kids {
		_, err := io.WriteString(c.in, "go\n")
		fatal(err)
	}
	for deadline := time.Now().Add(patience); s.left(queueName) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			fatal(fmt.Errorf("%s: %d worker processes left %d of %d jobs", s.name(), k, s.left(queueName), n))
		}
	}
	after := b.srv.usage()
	var all deed
	for _, c := range kids {
		fatal(c.in.Close())
		var d deed
		fatal(json.NewDecoder(c.out).Decode(&d))
		fatal(c.cmd.Wait())
		all.Jobs += d.Jobs
		all.CPU += d.CPU
		if d.Jobs == 0 {
			continue
		}
		if all.First == 0 || d.First < all.First {
			all.First = d.First
		}
		all.Last = max(all.Last, d.Last)
	}
	if all.Jobs != int64(n) {
		fatal(fmt.Errorf("%s: %d worker processes ran %d jobs of %d", s.name(), k, all.Jobs, n))
	}
	f := make(figures)
	before.since(after, n, f)
	f["client_cpu"] = all.CPU / float64(n)
	f["rate"] = float64(n-1) / (float64(all.Last-all.First) / 1e9)
	return f
}
