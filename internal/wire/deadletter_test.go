package wire

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDeadLetter_HasTheRecipesMembers(t *testing.T) {
	d := DeadLetter{}
	var m map[string]any
	require.NoError(t, json.Unmarshal(d.Append(nil), &m))
	for _, name := range []string{"task_name", "task_id", "args", "error", "retries", "timestamp", "reason", "queue"} {
		require.Contains(t, m, name)
	}
	require.Len(t, m, 9, "zero members are left out: %v", m) // with "v"
}

// The struct tags and the hand-made encoder name the same members.
func TestDeadLetter_TagsMatchAppend(t *testing.T) {
	for name, d := range goldenLetters() {
		byTags, err := json.Marshal(d)
		require.NoError(t, err, name)
		var want, got map[string]any
		require.NoError(t, json.Unmarshal(byTags, &want))
		require.NoError(t, json.Unmarshal(d.Append(nil), &got))
		for _, extra := range []string{"v", "errors", "extra"} { // not by tags
			delete(got, extra)
		}
		if name == "letter-malformed-empty" { // omitempty cannot tell empty from nil
			delete(got, "raw")
		}
		require.Equal(t, want, got, name)
	}
}

func TestDeadLetterEnvelope_RestoresWhatWasEnqueued(t *testing.T) {
	for name, e := range goldenEnvelopes() {
		d := DeadLetter{TaskName: e.Task, EnqueuedAt: Time(e.EnqueuedAt), RunAt: Time(e.RunAt),
			IdempotencyKey: e.IdempotencyKey, Headers: e.Headers, Extra: e.Extra}
		if e.Binary {
			d.Data = e.Args
		} else {
			d.Args = e.Args
		}
		d, err := ParseDeadLetter(d.Append(nil))
		require.NoError(t, err, name)
		got, err := d.Envelope()
		require.NoError(t, err, name)
		require.Equal(t, string(e.Append(nil)), string(got), name)
	}
}

func TestDeadLetterEnvelope_RawGoesBackAsItIs(t *testing.T) {
	for _, raw := range []string{"", "{", `{"v":9}`} {
		d := DeadLetter{TaskName: "t", Raw: []byte(raw)}
		d, err := ParseDeadLetter(d.Append(nil))
		require.NoError(t, err)
		got, err := d.Envelope()
		require.NoError(t, err)
		require.Equal(t, raw, string(got))
	}
}

func TestI2_DeadLetterEnvelopeRefusesWhatWasNotEnqueued(t *testing.T) {
	_, err := (&DeadLetter{TaskName: "t", Redacted: true}).Envelope()
	require.ErrorIs(t, err, ErrRedacted)
	for _, d := range []DeadLetter{
		{},
		{TaskName: "t", Args: []byte("{")},
		{TaskName: "t", Args: []byte(`1,"x":2`)},
		{TaskName: "t", Extra: []byte(`"task":"other"`)},
		{TaskName: "t", Args: []byte("1"), Extra: []byte(`"data":"AA=="`)},
	} {
		_, err := d.Envelope()
		require.ErrorIs(t, err, ErrMalformed, "%+v", d)
	}
}

func TestParseDeadLetter_Damage(t *testing.T) {
	for in, want := range map[string]string{
		``:                                "unexpected end",
		`null`:                            "want an object",
		`{"v":"1"}`:                       `member "v" is "1"`,
		`{"v":0}`:                         `member "v" is 0`,
		`{"v":1,"retries":"x"}`:           "cannot unmarshal string",
		`{"v":1,"timestamp":"yesterday"}`: "cannot parse",
		`{"v":1,"extra":[1]}`:             `member "extra" is no object`,
		`{"v":1,"data":"?"}`:              "illegal base64",
	} {
		d, err := ParseDeadLetter([]byte(in))
		require.ErrorIs(t, err, ErrMalformed, in)
		require.ErrorContains(t, err, want, in)
		require.Zero(t, d, in)
	}
	_, err := ParseDeadLetter([]byte(`{"retries":"x","v":7}`))
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "version 7 of the dead letter")
}

func TestParseDeadLetter_ReadsTheRecipesEntry(t *testing.T) {
	d, err := ParseDeadLetter([]byte(
		`{"task_name":"t","task_id":"1","args":[ 1 ],"error":"e","retries":3,"timestamp":"2024-11-19T09:06:40+02:00"}`))
	require.NoError(t, err)
	require.Equal(t, DeadLetter{TaskName: "t", TaskID: "1", Args: []byte("[ 1 ]"), Error: "e", Retries: 3,
		Timestamp: Time(noon)}, d)
}

func TestDeadLetter_TimesOutsideRFC3339AreClamped(t *testing.T) {
	d := DeadLetter{Timestamp: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), RunAt: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC),
		Errors: []Error{{At: -1}, {At: 1 << 62}}}
	got, err := ParseDeadLetter(d.Append(nil))
	require.NoError(t, err)
	require.Equal(t, 0, got.Timestamp.Year())
	require.Equal(t, 9999, got.RunAt.Year())
	require.Equal(t, []Error{{}, {At: maxMillis}}, got.Errors)
}

func TestTime_ZeroMeansUnknownBothWays(t *testing.T) {
	require.True(t, Time(0).IsZero())
	require.Zero(t, Millis(time.Time{}))
	require.EqualValues(t, noon, Millis(Time(noon)))
	require.Equal(t, time.UTC, Time(noon).Location())
	require.Zero(t, Millis(time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)))
}
