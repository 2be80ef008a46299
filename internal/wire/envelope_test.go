package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseEnvelope_ReadsWhatOtherProducersWrite(t *testing.T) {
	for in, want := range map[string]Envelope{
		`{"v":1,"task":"t"}`:                      {Task: "t", Args: []byte("null")},
		" {\r\n\t\"task\" : \"t\" , \"v\" : 1 } ": {Task: "t", Args: []byte("null")},
		`{"args":{"v":2,"task":""},"\u0074ask":"\u0074\/\ud83d\ude00","v":1}`: {
			Task: "t/😀", Args: []byte(`{"v":2,"task":""}`)},
		`{"v":1,"task":"t","at":null,"due":null,"key":null,"headers":null,"data":null}`: {Task: "t", Args: []byte("null")},
		`{"v":1,"task":"t","headers":{},"key":"","at":0,"due":253402300799999}`: {
			Task: "t", Args: []byte("null"), RunAt: maxMillis},
		`{"v":1,"task":"t","headers":{"a":"1","b":null,"a":"\n"}}`: {
			Task: "t", Args: []byte("null"), Headers: map[string]string{"a": "\n"}},
		`{"v":1,"task":"t","data":"\/\/8="}`:  {Task: "t", Binary: true, Args: []byte{0xff, 0xff}},
		"{\"v\":1,\"task\":\"\xff\"}":         {Task: "\ufffd", Args: []byte("null")},
		`{"v":1,"task":"\ud83d\u0041"}`:       {Task: "\ufffdA", Args: []byte("null")},
		`{"v":1,"Task":"T","task":"t","V":2}`: {Task: "t", Args: []byte("null"), Extra: []byte(`"Task":"T","V":2`)},
		`{"v":1,"task":"t","args": [1 , 2] , "z": 1}`: {
			Task: "t", Args: []byte("[1 , 2]"), Extra: []byte(`"z":1`)},
	} {
		got, err := ParseEnvelope([]byte(in))
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
}

func TestParseEnvelope_MalformedErrorsSayWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		``:                                   "offset 0: want an object",
		`null`:                               "offset 0: want an object",
		`[]`:                                 "offset 0: want an object",
		`{}`:                                 `member "v", offset 2: is missing`,
		`{"task":"t"}`:                       `member "v", offset 12: is missing`,
		`{"v":null,"task":"t"}`:              `member "v", offset 5: want an integer`,
		`{"v":"1","task":"t"}`:               `member "v", offset 5: want an integer`,
		`{"v":1.0,"task":"t"}`:               `member "v", offset 5: want an integer`,
		`{"v":0,"task":"t"}`:                 `member "v", offset 6: want 1`,
		`{"v":-2,"task":"t"}`:                `member "v", offset 7: want 1`,
		`{"v":1}`:                            `member "task", offset 7: is missing`,
		`{"v":1,"task":""}`:                  `member "task", offset 16: is empty`,
		`{"v":1,"task":null}`:                `member "task", offset 14: want a string`,
		`{"v":1,"task":7}`:                   `member "task", offset 14: want a string`,
		`{"v":1,"task":"t"}x`:                "offset 18: something follows",
		`{"v":1,"task":"t"}{}`:               "offset 18: something follows",
		"{\"v\":1,\"task\":\"t\"}\x00":       "offset 18: something follows",
		`{"v":1,"task":"t",}`:                "offset 18: want a member name",
		`{"v":1 "task":"t"}`:                 "offset 7: want a comma",
		`{"v" 1}`:                            "offset 5: want a colon",
		`{"v":1,"task":"t`:                   `member "task", offset 16: the string does not end`,
		`{"v":1,"v":1,"task":"t"}`:           `member "v", offset 11: stands twice`,
		`{"v":1,"task":"t","t\u0061sk":"u"}`: `member "task", offset 30: stands twice`,
		`{"v":1,"task":"t","args":1,"data":"AA=="}`:        `member "data", offset 41: stands beside args`,
		`{"v":1,"task":"t","args":null,"data":null}`:       `member "data", offset 42: stands beside args`,
		`{"v":1,"task":"t","data":"A"}`:                    `member "data", offset 25: want base64`,
		`{"v":1,"task":"t","data":[1]}`:                    `member "data", offset 25: want a string`,
		`{"v":1,"task":"t","at":1e3}`:                      `member "at", offset 23: want an integer`,
		`{"v":1,"task":"t","at":-1}`:                       `member "at", offset 23: want milliseconds`,
		`{"v":1,"task":"t","at":1732000000000000}`:         `member "at", offset 23: want milliseconds`,
		`{"v":1,"task":"t","due":99999999999999999999}`:    `member "due", offset 24: want an integer of 64 bits`,
		`{"v":1,"task":"t","key":{}}`:                      `member "key", offset 24: want a string`,
		`{"v":1,"task":"t","headers":[]}`:                  `member "headers", offset 28: want an object`,
		`{"v":1,"task":"t","headers":{"a":1}}`:             `member "headers", offset 33: want a string`,
		`{"v":1,"task":"t","headers":{"a":"b",}}`:          `member "headers", offset 37: want a member name`,
		`{"v":1,"task":"t","args":}`:                       `member "args", offset 25: want a value`,
		`{"v":1,"task":"t","args":[1,]}`:                   `member "args", offset 28: want a value`,
		`{"v":1,"task":"t","args":[1}}`:                    `member "args", offset 27: want a comma or a closing bracket`,
		`{"v":1,"task":"t","args":{"a":1]}`:                `member "args", offset 31: want a comma or a closing brace`,
		`{"v":1,"task":"t","args":01}`:                     `member "args", offset 25: a number starts`,
		`{"v":1,"task":"t","args":1.}`:                     `member "args", offset 26: invalid number`,
		`{"v":1,"task":"t","args":nul}`:                    `member "args", offset 25: invalid literal`,
		`{"v":1,"task":"t","args":"\x"}`:                   `member "args", offset 26: invalid escape`,
		`{"v":1,"task":"t","args":"\u12g4"}`:               `member "args", offset 26: invalid escape`,
		"{\"v\":1,\"task\":\"t\",\"args\":\"12345678\n\"}": `member "args", offset 34: control character`,
		`{"v":1,"task":"t","x":tru}`:                       "offset 22: invalid literal",
		`{"v":2,"task":"t"`:                                `member "v", offset 6: want 1`,
	} {
		e, err := ParseEnvelope([]byte(in))
		require.ErrorIs(t, err, ErrMalformed, in)
		require.ErrorContains(t, err, want, in)
		require.Zero(t, e, in)
	}
}

func TestParseEnvelope_NewerVersionIsToldFromDamage(t *testing.T) {
	for in, version := range map[string]string{
		`{"v":2,"task":"t"}`:                  "2",
		`{"v":2}`:                             "2",
		`{"at":"2030-01-01","task":{},"v":3}`: "3",
		`{"v":2,"args":1,"data":2,"v":1}`:     "2",
		`{"v":99999999999999999999}`:          "99999999999999999999",
	} {
		e, err := ParseEnvelope([]byte(in))
		require.ErrorIs(t, err, ErrVersion, in)
		require.NotErrorIs(t, err, ErrMalformed, in)
		require.ErrorContains(t, err, "version "+version+" of the envelope", in)
		require.Zero(t, e, in)
	}
	for _, in := range []string{`{"v":2`, `{"v":2}x`, `{"v":2.5}`, `{"v":1,"v":2}`, `[{"v":2}]`} {
		_, err := ParseEnvelope([]byte(in))
		require.ErrorIs(t, err, ErrMalformed, in)
	}
}

func TestI2_UnknownMembersSurviveARewrite(t *testing.T) {
	in := `{"zeta" : [1, 2.50, {"a":"\u0062"}],"v":1,"task":"t","args":{"a" : 1},"é\n":null}`
	e, err := ParseEnvelope([]byte(in))
	require.NoError(t, err)
	require.Equal(t, `"zeta":[1, 2.50, {"a":"\u0062"}],"é\n":null`, string(e.Extra))
	out := e.Append(nil)
	require.Equal(t, `{"v":1,"task":"t","args":{"a" : 1},"zeta":[1, 2.50, {"a":"\u0062"}],"é\n":null}`, string(out))
	again, err := ParseEnvelope(out)
	require.NoError(t, err)
	require.Equal(t, e, again)
}

func TestI13_HostileDepthIsRefusedNotFollowed(t *testing.T) {
	nested := func(n int) string { return strings.Repeat(`[{"a":`, n/2) + "1" + strings.Repeat("}]", n/2) }
	deepest := nested(MaxDepth - 1)
	require.True(t, Valid([]byte(deepest)))
	b := []byte(`{"v":1,"task":"t","args":` + deepest + `,"x":` + deepest + `}`)
	e, err := ParseEnvelope(b)
	require.NoError(t, err)
	require.Equal(t, deepest, string(e.Args))

	// The dead letter of the deepest envelope can still be read.
	d := DeadLetter{TaskName: "t", Args: e.Args, Extra: e.Extra}
	back, err := ParseDeadLetter(d.Append(nil))
	require.NoError(t, err)
	require.Equal(t, d, back)

	tooDeep := "[" + deepest + "]"
	require.False(t, Valid([]byte(tooDeep)))
	for _, hostile := range []string{tooDeep, strings.Repeat("[", 5e6), strings.Repeat(`{"":`, 5e6)} {
		for _, member := range []string{"args", "x"} {
			_, err = ParseEnvelope([]byte(`{"v":1,"task":"t","` + member + `":` + hostile + `}`))
			require.ErrorIs(t, err, ErrMalformed)
			require.ErrorContains(t, err, "nested too deep")
		}
	}
}

func TestEnvelopeAppend_IsReadableWhateverTheStrings(t *testing.T) {
	e := Envelope{Task: "\xff\x00", IdempotencyKey: "\xed\xa0\x80", Headers: map[string]string{"\xc3": "\""},
		EnqueuedAt: -62135596800000, RunAt: 1 << 62, Args: []byte("[]")}
	b := e.Append([]byte("before"))
	require.Equal(t, "before", string(b[:6]))
	require.True(t, json.Valid(b[6:]), "%s", b)
	got, err := ParseEnvelope(b[6:])
	require.NoError(t, err)
	require.Equal(t, Envelope{Task: "\ufffd\x00", IdempotencyKey: "\ufffd\ufffd\ufffd",
		Headers: map[string]string{"\ufffd": "\""}, RunAt: maxMillis, Args: []byte("[]")}, got)
}

func TestEnvelope_Allocations(t *testing.T) {
	e := Envelope{Task: "mail.welcome", EnqueuedAt: noon, Args: []byte(`{"to":"ann","n":1}`)}
	b := e.Append(nil)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { e.Append(nil) }), 1.0)
	require.Zero(t, testing.AllocsPerRun(100, func() { b = e.Append(b[:0]) }))
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = ParseEnvelope(b) }), 1.0)

	e.IdempotencyKey, e.RunAt = "order-7", noon
	b = e.Append(nil)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = ParseEnvelope(b) }), 2.0)

	e.Headers = map[string]string{"a": "b", "c": "d"}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { e.Append(nil) }), 1.0)

	e = Envelope{Task: "blob", Binary: true, Args: make([]byte, 1000)}
	b = e.Append(nil)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { e.Append(nil) }), 1.0)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = ParseEnvelope(b) }), 2.0)
}
