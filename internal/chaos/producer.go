package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// callers is how many goroutines of a producer enqueue at once.
const callers = 16

// producerProcess enqueues every Producers-th job, at an even pace, each until it is
// acknowledged. A producer that follows on one that was killed goes on with what
// the ledgers of its predecessors do not show as acknowledged.
func producerProcess(o childOptions, s side, ledger *journal) error {
	acked, tries, err := predecessors(o)
	if err != nil {
		return err
	}
	ledger.write(lineBegin, "", int64(os.Getpid()))
	rdb := redis.NewClient(&redis.Options{Addr: o.Addr})
	defer func() { _ = rdb.Close() }()
	enqueue, err := s.producer(rdb)
	if err != nil {
		return fmt.Errorf("producer: %w", err)
	}
	load := o.load()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				n := o.Index + int(next.Add(1)-1)*o.Producers
				if n >= o.Jobs {
					return
				}
				if acked[n] {
					continue
				}
				due := o.Start + int64(float64(n)/float64(o.Jobs)*float64(o.Duration))
				time.Sleep(-ago(due))
				submit(enqueue, load.job(n), tries[n], ledger)
			}
		})
	}
	wg.Wait()
	ledger.write(lineEnd, "")
	return nil
}

// submit enqueues one job under one id until it is acknowledged.
func submit(enqueue func(context.Context, job) (bool, error), j job, tries int64, ledger *journal) {
	for {
		tries++
		ledger.write(lineIntent, "", int64(j.n), tries, hashOf(j.payload))
		dup, err := enqueue(context.Background(), j)
		if err == nil {
			taken := int64(0)
			if dup {
				taken = 1
			}
			ledger.write(lineAck, "", int64(j.n), taken)
			return
		}
		ledger.write(lineNoAnswer, err.Error(), int64(j.n))
		time.Sleep(20 * time.Millisecond)
	}
}

// predecessors reads what earlier producers of the same slot did.
func predecessors(o childOptions) (acked map[int]bool, tries map[int]int64, err error) {
	acked, tries = make(map[int]bool), make(map[int]int64)
	files, err := filepath.Glob(filepath.Join(o.Dir, fmt.Sprintf("p%d-*%s", o.Index, journalSuffix)))
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		err := readJournal(file, func(e *entry) {
			switch e.kind {
			case lineIntent:
				tries[int(e.n[0])] = max(tries[int(e.n[0])], e.n[1])
			case lineAck:
				acked[int(e.n[0])] = true
			}
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return acked, tries, nil
}
