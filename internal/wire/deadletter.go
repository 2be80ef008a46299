package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// ErrRedacted: a dead letter's payload was redacted, so its job cannot be rebuilt.
var ErrRedacted = errors.New("payload was redacted")

// DeadLetter is a job that failed for good, with all that is known of why, and
// all that it takes to enqueue it again. Times are UTC; a zero time other than
// Timestamp is left out, as is every zero member from EnqueuedAt on.
type DeadLetter struct {
	// TaskName, TaskID and Queue say which job it was.
	TaskName string `json:"task_name"`
	TaskID   string `json:"task_id"`
	// Args is the payload as JSON; null for a binary payload, which is in Data.
	Args json.RawMessage `json:"args"`
	// Data is a binary payload; it is one, if empty, when not nil.
	Data []byte `json:"data,omitempty"`
	// Error is the text of the last error.
	Error string `json:"error"`
	// Retries counts the failures that were retried.
	Retries int `json:"retries"`
	// Timestamp is when the job died.
	Timestamp time.Time `json:"timestamp"`
	// Reason is why no other attempt follows.
	Reason string `json:"reason"`
	Queue  string `json:"queue"`

	EnqueuedAt     time.Time         `json:"enqueued_at,omitzero"`
	RunAt          time.Time         `json:"run_at,omitzero"`
	FirstStartedAt time.Time         `json:"first_started_at,omitzero"`
	Headers        map[string]string `json:"headers,omitempty"`
	// Worker buried the job.
	Worker         string `json:"worker,omitempty"`
	IdempotencyKey string `json:"idempotency_key,omitempty"`

	// Starts counts all attempts, the others those that ended for one cause.
	Starts     int `json:"starts,omitempty"`
	Crashes    int `json:"crashes,omitempty"`
	Snoozes    int `json:"snoozes,omitempty"`
	Interrupts int `json:"interrupts,omitempty"`
	Generation int `json:"generation,omitempty"`

	// Errors and ErrorsDropped are the history from the ledger.
	Errors        []Error `json:"-"` // as letterError
	ErrorsDropped int     `json:"errors_dropped,omitempty"`

	// Redacted says that the payload is not what was enqueued.
	Redacted bool `json:"redacted,omitempty"`
	// Raw is the envelope when it could not be decoded; it is one, if empty, when
	// not nil.
	Raw []byte `json:"raw,omitempty"`
	// Extra is [Envelope.Extra], so that a requeue restores it. In JSON it is the
	// object "extra".
	Extra []byte `json:"-"`
}

// letterError is an [Error] in the words that a reader of dead letters sees.
type letterError struct {
	Time       time.Time `json:"time"`
	Attempt    int       `json:"attempt"`
	Worker     string    `json:"worker"`
	DurationMS int64     `json:"duration_ms"`
	Text       string    `json:"error"`
	DelayMS    int64     `json:"delay_ms"`
}

// Append appends the encoded dead letter to dst, which may be nil. Args must be
// empty or valid JSON: it is copied as it is.
func (d *DeadLetter) Append(dst []byte) []byte {
	dst = grow(dst, d.size())
	dst = appendString(append(dst, `{"v":1,"task_name":`...), d.TaskName)
	dst = appendString(append(dst, `,"task_id":`...), d.TaskID)
	dst = append(dst, `,"args":`...)
	if len(d.Args) > 0 {
		dst = append(dst, d.Args...)
	} else {
		dst = append(dst, "null"...)
	}
	if d.Data != nil {
		dst = appendBase64(append(dst, `,"data":`...), d.Data)
	}
	dst = appendString(append(dst, `,"error":`...), d.Error)
	dst = appendNumber(append(dst, `,"retries":`...), int64(d.Retries))
	dst = appendRFC3339(append(dst, `,"timestamp":`...), d.Timestamp)
	dst = appendString(append(dst, `,"reason":`...), d.Reason)
	dst = appendString(append(dst, `,"queue":`...), d.Queue)
	dst = appendTime(dst, `,"enqueued_at":`, d.EnqueuedAt)
	dst = appendTime(dst, `,"run_at":`, d.RunAt)
	dst = appendTime(dst, `,"first_started_at":`, d.FirstStartedAt)
	if len(d.Headers) > 0 {
		dst = appendHeaders(append(dst, `,"headers":`...), d.Headers)
	}
	dst = appendText(dst, `,"worker":`, d.Worker)
	dst = appendText(dst, `,"idempotency_key":`, d.IdempotencyKey)
	dst = appendInt(dst, `,"starts":`, int64(d.Starts))
	dst = appendInt(dst, `,"crashes":`, int64(d.Crashes))
	dst = appendInt(dst, `,"snoozes":`, int64(d.Snoozes))
	dst = appendInt(dst, `,"interrupts":`, int64(d.Interrupts))
	dst = appendInt(dst, `,"generation":`, int64(d.Generation))
	if len(d.Errors) > 0 {
		dst = append(dst, `,"errors":`...)
		sep := byte('[')
		for i := range d.Errors {
			dst = d.Errors[i].appendLetter(append(dst, sep))
			sep = ','
		}
		dst = append(dst, ']')
	}
	dst = appendInt(dst, `,"errors_dropped":`, int64(d.ErrorsDropped))
	if d.Redacted {
		dst = append(dst, `,"redacted":true`...)
	}
	if d.Raw != nil {
		dst = appendBase64(append(dst, `,"raw":`...), d.Raw)
	}
	if len(d.Extra) > 0 {
		dst = append(append(append(dst, `,"extra":{`...), d.Extra...), '}')
	}
	return append(dst, '}')
}

func (d *DeadLetter) size() int {
	n := 512 + len(d.TaskName) + len(d.TaskID) + len(d.Args) + len(d.Error) + len(d.IdempotencyKey) +
		len(d.Extra) + base64.StdEncoding.EncodedLen(len(d.Data)+len(d.Raw))
	for k, v := range d.Headers {
		n += len(k) + len(v) + 6
	}
	for i := range d.Errors {
		n += 160 + len(d.Errors[i].Worker) + len(d.Errors[i].Text)
	}
	return n
}

// appendLetter appends every member, zero or not: people read dead letters.
func (e *Error) appendLetter(dst []byte) []byte {
	dst = appendRFC3339(append(dst, `{"time":`...), Time(e.At))
	dst = appendNumber(append(dst, `,"attempt":`...), int64(e.Attempt))
	dst = appendString(append(dst, `,"worker":`...), e.Worker)
	dst = appendNumber(append(dst, `,"duration_ms":`...), e.DurationMS)
	dst = appendString(append(dst, `,"error":`...), e.Text)
	dst = appendNumber(append(dst, `,"delay_ms":`...), e.DelayMS)
	return append(dst, '}')
}

// ParseDeadLetter decodes a dead letter. A missing version counts as 1. The error
// wraps [ErrMalformed] or [ErrVersion].
func ParseDeadLetter(b []byte) (DeadLetter, error) {
	if v := newerVersion(b); v != "" {
		return DeadLetter{}, tooNew("dead letter", v)
	}
	var d DeadLetter
	type plain DeadLetter
	j := struct {
		*plain
		Version json.RawMessage `json:"v"`
		Errors  []letterError   `json:"errors"`
		Extra   json.RawMessage `json:"extra"`
	}{plain: (*plain)(&d)}
	if err := json.Unmarshal(b, &j); err != nil {
		return DeadLetter{}, malformed("dead letter", "%v", err)
	}
	if b = bytes.TrimSpace(b); b[0] != '{' {
		return DeadLetter{}, malformed("dead letter", "want an object")
	}
	if j.Version != nil && string(j.Version) != "1" {
		return DeadLetter{}, malformed("dead letter", "member %q is %s, want 1", "v", j.Version)
	}
	if extra := bytes.TrimSpace(j.Extra); len(extra) > 0 && string(extra) != "null" {
		if extra[0] != '{' {
			return DeadLetter{}, malformed("dead letter", "member %q is no object", "extra")
		}
		if extra = bytes.TrimSpace(extra[1 : len(extra)-1]); len(extra) > 0 {
			d.Extra = extra
		}
	}
	if len(j.Errors) > 0 {
		d.Errors = make([]Error, len(j.Errors))
	}
	for i, e := range j.Errors {
		d.Errors[i] = Error{At: Millis(e.Time), Attempt: e.Attempt, Worker: e.Worker,
			DurationMS: e.DurationMS, Text: e.Text, DelayMS: e.DelayMS}
	}
	if len(d.Headers) == 0 {
		d.Headers = nil
	}
	if d.Args == nil {
		d.Args = json.RawMessage("null")
	}
	for _, t := range []*time.Time{&d.Timestamp, &d.EnqueuedAt, &d.RunAt, &d.FirstStartedAt} {
		*t = clampTime(*t)
	}
	return d, nil
}

// Envelope rebuilds the job's envelope for a requeue: Raw as it is when set, else
// from the members. It returns [ErrRedacted] for a redacted payload, and an error
// that wraps [ErrMalformed] when the members make no envelope, as after an edit.
func (d *DeadLetter) Envelope() ([]byte, error) {
	if d.Raw != nil {
		return d.Raw, nil
	}
	if d.Redacted {
		return nil, ErrRedacted
	}
	e := Envelope{
		Task: d.TaskName, Args: d.Args, EnqueuedAt: Millis(d.EnqueuedAt), RunAt: Millis(d.RunAt),
		IdempotencyKey: d.IdempotencyKey, Headers: d.Headers, Extra: d.Extra,
	}
	switch {
	case d.Data != nil:
		e.Args, e.Binary = d.Data, true
	case len(d.Args) > 0 && !Valid(d.Args): // would go out as members of its own (I2)
		return nil, malformed("dead letter", "member %q is not JSON", "args")
	}
	b := e.Append(nil)
	if _, err := ParseEnvelope(b); err != nil {
		return nil, err
	}
	return b, nil
}
