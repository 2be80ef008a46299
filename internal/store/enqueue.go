package store

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// laneTTL is how long a lane's last call is remembered: far longer than any
// client goes on sending the same call.
const laneTTL = time.Hour

// NewJob is one job to enqueue.
type NewJob struct {
	ID       string
	Envelope []byte
	// Delay counts from the moment Redis takes the job. Zero is at once.
	Delay time.Duration
	// RunAt, ms since the epoch, is used when Delay is zero. Zero is at once.
	RunAt int64
}

func (j *NewJob) due() string {
	switch {
	case j.Delay > 0:
		return "+" + strconv.FormatInt(ceilMillis(j.Delay), 10)
	case j.RunAt > 0:
		return strconv.FormatInt(j.RunAt, 10)
	}
	return ""
}

// Enqueue adds at most [MaxBatch] jobs in one call and returns the indexes of
// those whose id was taken. A lane sends one call at a time, each with a higher
// number than the last, and the same number when it sends a call again: then
// the answer is that of the first time. lookDead also finds ids among the dead
// letters; only ids that a user chose can be there.
//
// It returns [ErrFull] when Redis refuses to grow; nothing was written then.
func (q *Queue) Enqueue(ctx context.Context, lane string, call int64, lookDead bool, jobs []NewJob) (taken []int, err error) {
	k := &q.keys
	args := make([]any, 0, 4+3*len(jobs))
	look := "0"
	if lookDead {
		look = "1"
	}
	args = append(args, call, laneTTL.Milliseconds(), look, len(jobs))
	later := false
	for i := range jobs {
		j := &jobs[i]
		args = append(args, &j.ID, (*blob)(&j.Envelope)) // a pointer: an interface of a string allocates
		later = later || j.Delay > 0 || j.RunAt > 0
	}
	if later {
		for i := range jobs {
			args = append(args, jobs[i].due())
		}
	}
	res, err := q.run(ctx, enqueueScript,
		[]string{k.Jobs, k.Ready, k.Delayed, k.Letters, k.Lane(lane), k.Bell, k.Stats}, args)
	if errors.Is(err, redis.Nil) {
		return nil, q.wrap("enqueue", ErrOvertaken)
	}
	if err != nil {
		return nil, q.wrap("enqueue", err)
	}
	text, isText := res.(string)
	taken, ok := indexes(text, 1, len(jobs))
	if !isText || !ok {
		return nil, q.malformed("enqueue", res)
	}
	return taken, nil
}

// indexes reads a rising, comma-ended list of places among n, counted from base.
func indexes(s string, base, n int) ([]int, bool) {
	var out []int
	for s != "" {
		one, rest, ended := strings.Cut(s, ",")
		i, ok := digits(one)
		i -= base
		if !ok || !ended || i < 0 || i >= n || len(out) > 0 && i <= out[len(out)-1] {
			return nil, false
		}
		out, s = append(out, i), rest
	}
	return out, true
}

// ceilMillis rounds up, so that nothing is due early (I12).
func ceilMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
