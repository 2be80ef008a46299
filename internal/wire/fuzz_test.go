package wire

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// addGolden seeds a fuzz target with the golden files whose names begin alike.
func addGolden(f *testing.F, kind string) {
	paths, err := filepath.Glob(filepath.Join(goldenDir, kind+"-*.json"))
	require.NoError(f, err)
	require.NotEmpty(f, paths)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(b)
	}
}

type rawMember struct {
	name  string
	value json.RawMessage
}

// members lists the members of a JSON object in order, by encoding/json.
func members(b []byte) (list []rawMember, ok bool) {
	if !json.Valid(b) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, false
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, false
		}
		list = append(list, rawMember{name.(string), value})
	}
	return list, true
}

// oracle decodes an envelope by the rules in docs/wire-format.md with
// encoding/json alone. Newer says that the version is above 1.
func oracle(b []byte) (e Envelope, unknown []rawMember, ok, newer bool) {
	list, ok := members(b)
	if !ok {
		return e, nil, false, false
	}
	known := map[string]json.RawMessage{}
	twice := false
	for _, m := range list {
		switch m.name {
		case "v", "task", "at", "due", "key", "headers", "args", "data":
			if _, dup := known[m.name]; dup {
				twice = true
			} else {
				known[m.name] = m.value
			}
		default:
			unknown = append(unknown, m)
		}
	}
	var v json.Number
	if raw := known["v"]; len(raw) > 0 && raw[0] != '"' && json.Unmarshal(raw, &v) == nil &&
		!bytes.ContainsAny(raw, "-.eE") && v != "" && v != "0" && v != "1" {
		return e, nil, false, true
	}
	if twice || v != "1" {
		return e, nil, false, false
	}
	isString := func(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '"' }
	get := func(name string, into any) bool {
		raw, present := known[name]
		return !present || string(raw) == "null" || json.Unmarshal(raw, into) == nil
	}
	headers := map[string]*string{}
	var key *string
	switch {
	case !isString(known["task"]) || json.Unmarshal(known["task"], &e.Task) != nil || e.Task == "",
		!get("at", &e.EnqueuedAt) || e.EnqueuedAt < 0 || e.EnqueuedAt > maxMillis,
		!get("due", &e.RunAt) || e.RunAt < 0 || e.RunAt > maxMillis,
		!get("key", &key), !get("headers", &headers):
		return e, nil, false, false
	}
	if key != nil {
		e.IdempotencyKey = *key
	}
	for name, value := range headers {
		if value != nil {
			if e.Headers == nil {
				e.Headers = map[string]string{}
			}
			e.Headers[name] = *value
		}
	}
	args, hasArgs := known["args"]
	data, hasData := known["data"]
	switch {
	case hasArgs && hasData:
		return e, nil, false, false
	case hasArgs:
		e.Args = args
	case hasData && string(data) != "null":
		if !isString(data) || json.Unmarshal(data, &e.Args) != nil {
			return e, nil, false, false
		}
		e.Binary = true
	default:
		e.Args = []byte("null")
	}
	return e, unknown, true, false
}

// FuzzEnvelope holds the hand-made scanner against encoding/json, both ways, and
// then sends what it accepted around once more.
func FuzzEnvelope(f *testing.F) {
	addGolden(f, "envelope")
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= MaxDepth {
			return // the depth limits differ
		}
		require.Equal(t, json.Valid(b), Valid(b))
		got, err := ParseEnvelope(b)
		want, unknown, ok, newer := oracle(b)
		switch {
		case newer:
			require.ErrorIs(t, err, ErrVersion)
			return
		case !ok:
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.NoError(t, err)
		extra, ok := members([]byte("{" + string(got.Extra) + "}"))
		require.True(t, ok, "%q", got.Extra)
		require.Equal(t, unknown, extra)
		want.Extra = got.Extra
		require.Equal(t, want, got)

		out := got.Append(nil)
		again, err := ParseEnvelope(out)
		require.NoError(t, err, "%q", out)
		require.Equal(t, got, again)
		require.Equal(t, out, again.Append(nil))
	})
}

// FuzzEnvelopeStrings sends envelopes around that a producer makes of any bytes.
func FuzzEnvelopeStrings(f *testing.F) {
	f.Add("mail.welcome", "order-7", "trace", "00-ab", []byte("{}"), int64(noon))
	f.Add("\xff\u2028\\\"", "\x00", "", "", []byte("\xff"), int64(-1))
	f.Fuzz(func(t *testing.T, task, key, name, value string, payload []byte, ms int64) {
		if task == "" {
			return
		}
		e := Envelope{Task: task, IdempotencyKey: key, Headers: map[string]string{name: value},
			EnqueuedAt: ms, RunAt: -ms, Args: payload, Binary: true}
		if Valid(payload) {
			e.Binary = false
		}
		b := e.Append(nil)
		got, err := ParseEnvelope(b)
		require.NoError(t, err, "%q", b)
		if e.Binary {
			require.Equal(t, string(payload), string(got.Args))
		} else {
			require.JSONEq(t, string(payload), string(got.Args))
		}
		var want struct {
			Task, Key string
			Headers   map[string]string
		}
		require.NoError(t, json.Unmarshal(b, &want))
		require.Equal(t, want.Task, got.Task)
		require.Equal(t, want.Key, got.IdempotencyKey)
		require.Equal(t, want.Headers, got.Headers)
	})
}

func FuzzLedger(f *testing.F) {
	addGolden(f, "ledger")
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLedger(b)
		if err != nil {
			require.Zero(t, l)
			return
		}
		out := l.Append(nil)
		again, err := ParseLedger(out)
		require.NoError(t, err, "%q", out)
		if len(l.RuleRetries) == 0 {
			l.RuleRetries = nil
		}
		if len(l.Errors) == 0 {
			l.Errors = nil
		}
		require.Equal(t, l, again)

		before := len(l.Errors) + l.Dropped
		l.Add(Error{Text: string(b)})
		require.LessOrEqual(t, len(l.Errors), FirstErrors+LastErrors)
		require.Equal(t, before+1, len(l.Errors)+l.Dropped)
		require.LessOrEqual(t, len(l.Errors[len(l.Errors)-1].Text), MaxErrorText)
		_, err = ParseLedger(l.Append(nil))
		require.NoError(t, err)
	})
}

func FuzzDeadLetter(f *testing.F) {
	addGolden(f, "letter")
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDeadLetter(b)
		if err != nil {
			require.Zero(t, d)
			return
		}
		out := d.Append(nil)
		again, err := ParseDeadLetter(out)
		require.NoError(t, err, "%q", out)
		require.Equal(t, d, again)

		envelope, err := d.Envelope()
		if err != nil || d.Raw != nil {
			return
		}
		e, err := ParseEnvelope(envelope)
		require.NoError(t, err)
		require.Equal(t, d.TaskName, e.Task)
		require.Equal(t, d.Headers, e.Headers)
	})
}
