package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// now is the time in ns on the clock that counts from the machine's start: one for
// all processes, set by nobody, and not halted by a SIGSTOP.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// ago is the time from t, of the same clock, until now.
func ago(t int64) time.Duration { return time.Duration(now() - t) }
