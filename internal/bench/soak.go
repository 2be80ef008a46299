package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// soak watches the memory of one worker process of 1,000 slots, all of which are busy
// with jobs of 1 KiB: its resident set once a second.
func (b *bench) soak(length time.Duration) error {
	const slots, payload, work = 1000, 1024, 200 * time.Millisecond
	const rate = int(slots * time.Second / work) // jobs a second keep every slot busy
	s := b.redrive
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(order{Side: s.name(), Addr: b.srv.addr, Slots: slots, Queue: queueName, Work: work})
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	b.settled()
	s.fill(queueName, 3*rate, payload, 0)
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		return err
	}
	fmt.Printf("one worker process, %d slots, payload %d bytes, a handler that takes %v: %d jobs/s\n", slots, payload, work, rate)
	var most, first, last int // of all, of the first half and of the second, MiB
	started := time.Now()
	for tick := time.NewTicker(time.Second); time.Since(started) < length; <-tick.C {
		if left := s.left(queueName); left < 3*rate {
			s.fill(queueName, 3*rate-left, payload, 0)
		}
		now, err := resident(cmd.Process.Pid)
		if err != nil {
			return err
		}
		if time.Since(started) < length/2 {
			first = max(first, now)
		} else {
			last = max(last, now)
		}
		most = max(most, now)
	}
	if err := in.Close(); err != nil {
		return err
	}
	var d deed
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&d); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	fmt.Printf("%v, %d jobs, %.1f µs of CPU each; resident at most %d MiB; first half %d, second half %d\n",
		length, d.Jobs, d.CPU/float64(d.Jobs), most, first, last)
	if most >= 100 {
		return fmt.Errorf("the worker grew to %d MiB: 100 is the limit", most)
	}
	return nil
}

// resident returns the resident set of a process in MiB.
func resident(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0, fmt.Errorf("read statm: %q", text)
	}
	pages, err := strconv.Atoi(string(fields[1]))
	return pages * os.Getpagesize() >> 20, err
}
