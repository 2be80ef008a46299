package store

import (
	"context"
	"strconv"
	"strings"
	"time"
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
	args := make([]any, 0, 3+3*len(jobs))
	look := "0"
	if lookDead {
		look = "1"
	}
	args = append(args, call, laneTTL.Milliseconds(), look)
	for i := range jobs {
		args = append(args, jobs[i].ID, jobs[i].Envelope, jobs[i].due())
	}
	res, err := q.run(ctx, enqueueScript,
		[]string{k.Jobs, k.Ready, k.Delayed, k.Letters, k.Lane(lane), k.Bell, k.Stats}, args)
	if err != nil {
		return nil, q.wrap("enqueue", err)
	}
	if reply, _ := res.([]any); len(reply) == 1 && reply[0] == int64(-1) {
		return nil, q.wrap("enqueue", ErrOvertaken)
	}
	r := readReply(res, 2)
	r.time()
	taken, ok := indexes(r.text(), 1, len(jobs))
	if !ok || r.bad {
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
