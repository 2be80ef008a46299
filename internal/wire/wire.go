// Package wire holds the encodings that redrive writes to Redis: the envelope of
// a job, the ledger of a job that did not succeed first time, and the dead letter.
// docs/wire-format.md describes them for other languages.
//
// All three are JSON objects with a version. An envelope is written by any
// producer in any language and rewritten by workers of any version, so members
// that this version does not know survive a rewrite. A ledger and a dead letter
// are written by workers only, and unknown members are dropped.
package wire

import (
	"errors"
	"fmt"
	"time"
)

// Version is the version of every encoding that this package writes, and the
// newest that it reads.
const Version = 1

// MaxDepth is how deep the arrays and objects of an envelope may nest, the
// envelope itself counted. encoding/json gives up at 10,000; one less lets a
// dead letter wrap the members once more and still be read.
const MaxDepth = 9999

// maxMillis is the last millisecond of the year 9999, the last that RFC 3339
// can write.
const maxMillis = 253402300799999

// Errors of decoding. What is returned wraps one of them and says which member
// is wrong, where, and how.
var (
	// ErrMalformed: the bytes are not what this package writes and documents.
	ErrMalformed = errors.New("malformed")
	// ErrVersion: the bytes are well-formed JSON of a version newer than [Version].
	ErrVersion = errors.New("unsupported version")
)

// Time converts milliseconds since the Unix epoch to a time in UTC. Zero means
// unknown and becomes the zero time.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(clampMillis(ms)).UTC()
}

// Millis is the inverse of [Time].
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return clampMillis(t.UnixMilli())
}

// clampMillis keeps a time within what every encoding can carry: 1970 to 9999.
func clampMillis(ms int64) int64 { return min(max(ms, 0), maxMillis) }

func malformed(what, format string, args ...any) error {
	return fmt.Errorf("%w %s: %s", ErrMalformed, what, fmt.Sprintf(format, args...))
}

func tooNew(what, version string) error {
	return fmt.Errorf("%w %s of the %s: this build reads up to %d", ErrVersion, version, what, Version)
}
