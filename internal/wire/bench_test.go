package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

// benchEnvelope has a payload of 100 bytes.
func benchEnvelope() Envelope {
	return Envelope{Task: "mail.welcome", EnqueuedAt: noon,
		Args: []byte(`{"to":"ann@example.com","n":12,"tags":["a","b"],"body":"` + strings.Repeat("x", 42) + `"}`)}
}

func BenchmarkEnvelopeAppend(b *testing.B) {
	e := benchEnvelope()
	b.ReportAllocs()
	for b.Loop() {
		e.Append(nil)
	}
}

func BenchmarkEnvelopeAppendReuse(b *testing.B) {
	e := benchEnvelope()
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = e.Append(dst[:0])
	}
}

func BenchmarkParseEnvelope(b *testing.B) {
	e := benchEnvelope()
	in := e.Append(nil)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEnvelope(in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParseEnvelopeJSON is the same work by encoding/json, for the ratio.
func BenchmarkParseEnvelopeJSON(b *testing.B) {
	e := benchEnvelope()
	in := e.Append(nil)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		var out struct {
			V    int             `json:"v"`
			Task string          `json:"task"`
			At   int64           `json:"at"`
			Args json.RawMessage `json:"args"`
		}
		if err := json.Unmarshal(in, &out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseEnvelopeHeaders(b *testing.B) {
	e := goldenEnvelopes()["envelope-full"]
	in := e.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEnvelope(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLedgerAppend(b *testing.B) {
	l := goldenLedgers()["ledger-usual"]
	b.ReportAllocs()
	for b.Loop() {
		l.Append(nil)
	}
}

func BenchmarkParseLedger(b *testing.B) {
	l := goldenLedgers()["ledger-usual"]
	in := l.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseLedger(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeadLetterAppend(b *testing.B) {
	d := goldenLetters()["letter-usual"]
	b.ReportAllocs()
	for b.Loop() {
		d.Append(nil)
	}
}

func BenchmarkDeadLetterMarshal(b *testing.B) { // by encoding/json, for the ratio
	d := goldenLetters()["letter-usual"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(d); err != nil {
			b.Fatal(err)
		}
	}
}
