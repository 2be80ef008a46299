package wire

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What a ledger keeps of its error history.
const (
	// FirstErrors and LastErrors bound the history from both ends: how it began
	// and how it ended tell more than the middle.
	FirstErrors = 3
	LastErrors  = 7
	// MaxErrorText bounds the text of one error, in bytes.
	MaxErrorText = 2 << 10
)

// cutMark ends a text that was cut.
const cutMark = "…"

// Ledger is what is kept of a job that did not succeed first time: a counter for
// each cause of another attempt, and the errors.
//
//	{"v":1,"g":1,"r":2,"c":1,"s":1,"i":1,"rr":{"0":2},"fs":1732000000000,
//	 "e":[{"at":1732000000000,"n":1,"w":"host-1","ms":12,"err":"boom","d":1000}],"x":4}
type Ledger struct {
	// Generation counts how often the job came back from the dead letters.
	Generation int
	// Retries, Crashes, Snoozes and Interrupts count the attempts that ended in a
	// failure, in the death of their process, in a snooze, in a shutdown (I8).
	Retries, Crashes, Snoozes, Interrupts int
	// RuleRetries counts the retries of each retry rule, by its index. Defaults to
	// none.
	RuleRetries map[int]int
	// FirstStarted is when the first attempt of this generation began, ms.
	// Defaults to 0, unknown.
	FirstStarted int64
	// Errors is the history, oldest first: the first three and the last seven.
	Errors []Error
	// Dropped counts the records that fell out between them.
	Dropped int
}

// Error is one failed attempt in a [Ledger]. Every zero member is left out.
type Error struct {
	// At is when the attempt ended, ms.
	At int64 `json:"at"`
	// Attempt is its number, from 1.
	Attempt int `json:"n"`
	// Worker ran it.
	Worker string `json:"w"`
	// DurationMS is how long the handler ran.
	DurationMS int64 `json:"ms"`
	// Text is the error's text; [Ledger.Add] cuts it.
	Text string `json:"err"`
	// DelayMS is the wait that was chosen before the next attempt.
	DelayMS int64 `json:"d"`
}

// Add appends a record to the history, drops what falls out of the middle, and
// cuts the text to [MaxErrorText] bytes. It may shift l.Errors in place.
func (l *Ledger) Add(e Error) {
	e.Text = cutText(e.Text)
	l.Errors = append(l.Errors, e)
	if over := len(l.Errors) - FirstErrors - LastErrors; over > 0 {
		l.Errors = slices.Delete(l.Errors, FirstErrors, FirstErrors+over)
		l.Dropped += over
	}
}

// cutText shortens s to MaxErrorText bytes, the mark included, between two runes.
// Invalid UTF-8 is replaced first, for it would grow when encoded.
func cutText(s string) string {
	if len(s) <= MaxErrorText && utf8.ValidString(s) {
		return s
	}
	// One rune more than fits is enough to see that the text is too long.
	head := s[:min(len(s), MaxErrorText+utf8.UTFMax)]
	valid := strings.ToValidUTF8(head, string(utf8.RuneError))
	if len(head) == len(s) && len(valid) <= MaxErrorText {
		return valid
	}
	end := min(len(valid), MaxErrorText-len(cutMark))
	for end > 0 && end < len(valid) && !utf8.RuneStart(valid[end]) {
		end--
	}
	return valid[:end] + cutMark
}

// Append appends the encoded ledger to dst, which may be nil.
func (l *Ledger) Append(dst []byte) []byte {
	n := 128 + 16*len(l.RuleRetries)
	for i := range l.Errors {
		n += 96 + len(l.Errors[i].Worker) + len(l.Errors[i].Text)
	}
	dst = append(grow(dst, n), `{"v":1`...)
	dst = appendInt(dst, `,"g":`, int64(l.Generation))
	dst = appendInt(dst, `,"r":`, int64(l.Retries))
	dst = appendInt(dst, `,"c":`, int64(l.Crashes))
	dst = appendInt(dst, `,"s":`, int64(l.Snoozes))
	dst = appendInt(dst, `,"i":`, int64(l.Interrupts))
	if len(l.RuleRetries) > 0 {
		dst = append(dst, `,"rr":`...)
		sep := byte('{')
		for _, rule := range sortedRules(l.RuleRetries) {
			dst = strconv.AppendInt(append(dst, sep, '"'), int64(rule), 10)
			dst = strconv.AppendInt(append(dst, '"', ':'), int64(l.RuleRetries[rule]), 10)
			sep = ','
		}
		dst = append(dst, '}')
	}
	dst = appendInt(dst, `,"fs":`, l.FirstStarted)
	if len(l.Errors) > 0 {
		dst = append(dst, `,"e":`...)
		sep := byte('[')
		for i := range l.Errors {
			dst = l.Errors[i].append(append(dst, sep))
			sep = ','
		}
		dst = append(dst, ']')
	}
	return append(appendInt(dst, `,"x":`, int64(l.Dropped)), '}')
}

func sortedRules(m map[int]int) []int {
	if len(m) == 1 { // the usual case, without a sort
		for rule := range m {
			return []int{rule}
		}
	}
	return slices.Sorted(maps.Keys(m))
}

func (e *Error) append(dst []byte) []byte {
	dst = append(dst, '{')
	start := len(dst)
	dst = appendInt(dst, `,"at":`, e.At)
	dst = appendInt(dst, `,"n":`, int64(e.Attempt))
	dst = appendText(dst, `,"w":`, e.Worker)
	dst = appendInt(dst, `,"ms":`, e.DurationMS)
	dst = appendText(dst, `,"err":`, e.Text)
	dst = appendInt(dst, `,"d":`, e.DelayMS)
	if len(dst) > start { // every member brought a comma; the first has no use for it
		dst = slices.Delete(dst, start, start+1)
	}
	return append(dst, '}')
}

type ledgerJSON struct {
	Version      json.RawMessage `json:"v"`
	Generation   int             `json:"g"`
	Retries      int             `json:"r"`
	Crashes      int             `json:"c"`
	Snoozes      int             `json:"s"`
	Interrupts   int             `json:"i"`
	RuleRetries  map[int]int     `json:"rr"`
	FirstStarted int64           `json:"fs"`
	Errors       []Error         `json:"e"`
	Dropped      int             `json:"x"`
}

// ParseLedger decodes a ledger; nothing decodes as the zero ledger, for a job has
// none until its first failure. With an error, which wraps [ErrMalformed] or
// [ErrVersion], the ledger is zero, so that a caller may go on without history.
func ParseLedger(b []byte) (Ledger, error) {
	if len(b) == 0 {
		return Ledger{}, nil
	}
	if v := newerVersion(b); v != "" {
		return Ledger{}, tooNew("ledger", v)
	}
	var j ledgerJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Ledger{}, malformed("ledger", "%v", err)
	}
	if string(j.Version) != "1" {
		return Ledger{}, malformed("ledger", "member %q is %s, want 1", "v", orMissing(j.Version))
	}
	counts := [...]int{j.Generation, j.Retries, j.Crashes, j.Snoozes, j.Interrupts, j.Dropped}
	for i, n := range counts {
		if badCount(n) {
			return Ledger{}, malformed("ledger", "member %q is %d", "grcsix"[i:i+1], n)
		}
	}
	for rule, n := range j.RuleRetries {
		if badCount(rule) || badCount(n) {
			return Ledger{}, malformed("ledger", "member %q holds %d for rule %d", "rr", n, rule)
		}
	}
	return Ledger{
		Generation: j.Generation, Retries: j.Retries, Crashes: j.Crashes, Snoozes: j.Snoozes,
		Interrupts: j.Interrupts, RuleRetries: j.RuleRetries, FirstStarted: j.FirstStarted,
		Errors: j.Errors, Dropped: j.Dropped,
	}, nil
}

// badCount finds what no counter reaches by counting; the bound leaves room to
// count on without overflow.
func badCount(n int) bool { return n < 0 || n >= math.MaxInt32 }

func orMissing(raw []byte) string {
	if raw == nil {
		return "missing"
	}
	return string(raw)
}
