package wire

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const goldenDir = "../../testdata/wire/v1"

// checkGolden compares got with a golden file and returns the file's bytes. A
// golden file is what some deployed version wrote: a change to one is a change
// of format.
func checkGolden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join(goldenDir, name+".json")
	if *update {
		require.NoError(t, os.MkdirAll(goldenDir, 0o755))
		require.NoError(t, os.WriteFile(path, append(got[:len(got):len(got)], '\n'), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got)+"\n")
	return want
}

const noon = 1732000000000

func goldenEnvelopes() map[string]Envelope {
	return map[string]Envelope{
		"envelope-minimal": {Task: "tidy", Args: []byte("null")},
		"envelope-usual":   {Task: "mail.welcome", EnqueuedAt: noon, Args: []byte(`{"to":"ann"}`)},
		"envelope-full": {Task: "mail.welcome", EnqueuedAt: noon, RunAt: noon + 60000, IdempotencyKey: "order-7",
			Headers: map[string]string{"trace": "00-ab", "tenant": "blå"}, Args: []byte(`[1,{"a":[]}]`)},
		"envelope-binary":       {Task: "blob", EnqueuedAt: noon, Binary: true, Args: []byte{0, 1, 0xfe, 0xff}},
		"envelope-binary-empty": {Task: "blob", Binary: true, Args: []byte{}},
		"envelope-extra": {Task: "mail.welcome", EnqueuedAt: noon, Args: []byte(`{}`),
			Extra: []byte(`"priority":9,"x-\u0061":{"deep": [1, 2]}`)},
		"envelope-escapes": {Task: "a\"b\\c", IdempotencyKey: "\x00\b\f\n\r\t\x1f<&>\u2028\u00e9\U0001F600",
			Headers: map[string]string{"": "", "\n": "\x7f"}, Args: []byte(`"\ud83d\ude00"`)},
	}
}

func TestGoldenEnvelopes(t *testing.T) {
	for name, e := range goldenEnvelopes() {
		t.Run(name, func(t *testing.T) {
			got, err := ParseEnvelope(checkGolden(t, name, e.Append(nil)))
			require.NoError(t, err)
			require.Equal(t, e, got)
		})
	}
}

func goldenLedgers() map[string]Ledger {
	full := Ledger{Generation: 1, Retries: 2, Crashes: 3, Snoozes: 4, Interrupts: 5,
		RuleRetries: map[int]int{0: 2, 10: 1, 3: 4}, FirstStarted: noon}
	for i := range 14 {
		full.Add(Error{At: noon + int64(i), Attempt: i + 1, Worker: "host-1", DurationMS: 12, Text: "bøøm \"x\"\n", DelayMS: 1000})
	}
	return map[string]Ledger{
		"ledger-zero": {},
		"ledger-usual": {Retries: 1, FirstStarted: noon, Errors: []Error{
			{At: noon, Attempt: 1, Worker: "host-1", DurationMS: 12, Text: "boom", DelayMS: 1000}}},
		"ledger-full":  full,
		"ledger-empty": {Crashes: 1, Errors: []Error{{}, {Text: "x"}}},
	}
}

func TestGoldenLedgers(t *testing.T) {
	for name, l := range goldenLedgers() {
		t.Run(name, func(t *testing.T) {
			got, err := ParseLedger(checkGolden(t, name, l.Append(nil)))
			require.NoError(t, err)
			require.Equal(t, l, got)
		})
	}
}

func goldenLetters() map[string]DeadLetter {
	died := time.Date(2024, 11, 19, 7, 6, 40, 123456789, time.UTC)
	return map[string]DeadLetter{
		"letter-usual": {TaskName: "mail.welcome", TaskID: "0193-1", Args: []byte(`{"to":"ann"}`), Error: "boom",
			Retries: 5, Timestamp: died, Reason: "exhausted", Queue: "mail", EnqueuedAt: Time(noon),
			FirstStartedAt: Time(noon + 5), Worker: "host-1", Starts: 6,
			Errors: []Error{{At: noon + 6, Attempt: 1, Worker: "host-1", DurationMS: 12, Text: "boom", DelayMS: 1000}}},
		"letter-full": {TaskName: "mail.welcome", TaskID: "0193-2", Args: []byte(`[1,{"a":[]}]`), Error: "bøøm\n<\">",
			Retries: 1, Timestamp: died, Reason: "crash-loop", Queue: "mail", EnqueuedAt: Time(noon),
			RunAt: Time(noon + 60000), FirstStartedAt: Time(noon + 60005),
			Headers: map[string]string{"trace": "00-ab", "tenant": "blå"}, Worker: "host-1", IdempotencyKey: "order-7",
			Starts: 13, Crashes: 3, Snoozes: 4, Interrupts: 5, Generation: 1,
			Errors:        []Error{{}, {At: noon, Attempt: 2, Worker: "w", DurationMS: 1, Text: "t", DelayMS: 2}},
			ErrorsDropped: 9, Redacted: true, Extra: []byte(`"priority":9,"x-\u0061":{"deep": [1, 2]}`)},
		"letter-binary": {TaskName: "blob", TaskID: "0193-3", Args: []byte("null"), Data: []byte{0, 1, 0xfe, 0xff},
			Timestamp: died, Reason: "permanent", Queue: "bulk"},
		"letter-malformed": {TaskID: "0193-4", Args: []byte("null"), Raw: []byte(`{"v":1,`), Error: "malformed",
			Timestamp: died, Reason: "malformed", Queue: "bulk"},
		"letter-malformed-empty": {TaskID: "0193-5", Args: []byte("null"), Raw: []byte{}, Timestamp: died,
			Reason: "malformed", Queue: "bulk"},
		"letter-zero": {Args: []byte("null")},
	}
}

func TestGoldenDeadLetters(t *testing.T) {
	for name, d := range goldenLetters() {
		t.Run(name, func(t *testing.T) {
			got, err := ParseDeadLetter(checkGolden(t, name, d.Append(nil)))
			require.NoError(t, err)
			require.Equal(t, d, got)
		})
	}
}
