package wire

import (
	"encoding/base64"
	"strconv"
)

// Envelope is one job as its producer wrote it. The job's id is not in it: it is
// the name of the hash field that holds the envelope.
//
//	{"v":1,"task":"mail.welcome","at":1732000000000,"due":1732000060000,
//	 "key":"order-7","headers":{"trace":"00-ab"},"args":{"to":"ann"}}
type Envelope struct {
	// Task names the task. It must not be empty.
	Task string
	// Args is the payload: one JSON value, or any bytes when Binary is set. An
	// absent payload decodes as JSON null, and both encode as absent.
	Args []byte
	// Binary makes Args travel as base64 in the member "data". Defaults to raw
	// JSON in the member "args".
	Binary bool
	// EnqueuedAt is the producer's clock in ms since the Unix epoch. Defaults to
	// 0, unknown.
	EnqueuedAt int64
	// RunAt is when the job is due, ms. It informs the handler; what delays the
	// job is its score in the delayed set. Defaults to 0, at once.
	RunAt int64
	// IdempotencyKey identifies the effect across jobs. Defaults to none.
	IdempotencyKey string
	// Headers travel with the job. Defaults to none.
	Headers map[string]string
	// Extra is the members that this version does not know, as they were
	// written: "name":value with commas between and no braces. It goes back out
	// as it is, so that a rewrite loses nothing. Defaults to none.
	Extra []byte
}

// Append appends the encoded envelope to dst, which may be nil. Unless Binary is
// set, Args must be JSON that [Valid] accepts: it is copied as it is. Times
// outside 1970 to 9999 become the nearer bound.
func (e *Envelope) Append(dst []byte) []byte {
	dst = grow(dst, e.size())
	dst = appendString(append(dst, `{"v":1,"task":`...), e.Task)
	dst = appendInt(dst, `,"at":`, clampMillis(e.EnqueuedAt))
	dst = appendInt(dst, `,"due":`, clampMillis(e.RunAt))
	dst = appendText(dst, `,"key":`, e.IdempotencyKey)
	if len(e.Headers) > 0 {
		dst = appendHeaders(append(dst, `,"headers":`...), e.Headers)
	}
	switch {
	case e.Binary:
		dst = appendBase64(append(dst, `,"data":`...), e.Args)
	case len(e.Args) > 0 && string(e.Args) != "null":
		dst = append(append(dst, `,"args":`...), e.Args...)
	}
	if len(e.Extra) > 0 {
		dst = append(append(dst, ','), e.Extra...)
	}
	return append(dst, '}')
}

// size estimates the encoded length; it is exact or more when nothing needs
// escaping.
func (e *Envelope) size() int {
	n := 96 + len(e.Task) + len(e.IdempotencyKey) + len(e.Extra)
	for k, v := range e.Headers {
		n += len(k) + len(v) + 6
	}
	if e.Binary {
		return n + base64.StdEncoding.EncodedLen(len(e.Args))
	}
	return n + len(e.Args)
}

// Valid reports whether b may be the args of an envelope: one JSON value, nested
// no deeper than [ParseEnvelope] will follow.
func Valid(b []byte) bool {
	s := scanner{b: b}
	_, ok := s.value(1)
	return ok && s.space() == 0 && s.i == len(b)
}

// Known members, as bits of a set that finds duplicates.
const (
	hasVersion = 1 << iota
	hasTask
	hasAt
	hasDue
	hasKey
	hasHeaders
	hasArgs
	hasData
)

func memberBit(name []byte) int {
	switch string(name) {
	case "v":
		return hasVersion
	case "task":
		return hasTask
	case "at":
		return hasAt
	case "due":
		return hasDue
	case "key":
		return hasKey
	case "headers":
		return hasHeaders
	case "args":
		return hasArgs
	case "data":
		return hasData
	}
	return 0
}

// ParseEnvelope decodes an envelope. Args that travelled as JSON alias b and were
// checked whole, so a handler never sees half a value (I2, I13); everything else
// is a copy. Any member other than "v", "task" and "args" that is null counts as
// absent. The error wraps [ErrVersion] when b is well-formed and its version is
// newer than [Version], and [ErrMalformed] for every other fault.
func ParseEnvelope(b []byte) (Envelope, error) {
	p := envelopeParser{scanner: scanner{b: b}}
	if p.parse() {
		return p.e, nil
	}
	if v := newerVersion(b); v != "" {
		return Envelope{}, tooNew("envelope", v)
	}
	if p.member == "" {
		return Envelope{}, malformed("envelope", "offset %d: %s", p.i, p.msg)
	}
	return Envelope{}, malformed("envelope", "member %q, offset %d: %s", p.member, p.i, p.msg)
}

type envelopeParser struct {
	scanner
	e      Envelope
	seen   int
	member string // the known member at fault
}

func (p *envelopeParser) parse() bool {
	if !p.eat('{', "want an object") {
		return false
	}
	if p.space() == '}' {
		p.i++
	} else {
		for more := true; more; {
			if !p.one() {
				return false
			}
			switch p.space() {
			case ',':
			case '}':
				more = false
			default:
				return p.fail("want a comma or a closing brace")
			}
			p.i++
		}
	}
	if p.space(); p.i < len(p.b) {
		return p.fail("something follows the envelope")
	}
	switch {
	case p.seen&hasVersion == 0:
		return p.fault("v", "is missing")
	case p.seen&hasTask == 0:
		return p.fault("task", "is missing")
	case p.seen&(hasArgs|hasData) == hasArgs|hasData:
		return p.fault("data", "stands beside args")
	}
	if !p.e.Binary && p.e.Args == nil {
		p.e.Args = []byte("null")
	}
	return true
}

func (p *envelopeParser) fault(member, msg string) bool {
	p.member = member
	return p.fail(msg)
}

// one takes one member.
func (p *envelopeParser) one() bool {
	raw, name, ok := p.name()
	if !ok {
		return false
	}
	bit := memberBit(name)
	if bit == 0 {
		value, ok := p.value(1)
		if ok {
			if p.e.Extra != nil {
				p.e.Extra = append(p.e.Extra, ',')
			}
			p.e.Extra = append(append(append(p.e.Extra, raw...), ':'), value...)
		}
		return ok
	}
	if p.seen&bit != 0 {
		return p.fault(string(name), "stands twice")
	}
	p.seen |= bit
	if !p.known(bit) {
		p.member = string(name)
		return false
	}
	return true
}

func (p *envelopeParser) known(bit int) (ok bool) {
	switch bit {
	case hasArgs:
		p.e.Args, ok = p.value(1)
		return ok
	case hasVersion:
		if v, ok := p.integer(); !ok {
			return false
		} else if v != Version {
			return p.fail("want 1")
		}
		return true
	case hasTask:
		if p.e.Task, ok = p.text(); ok && p.e.Task == "" {
			return p.fail("is empty")
		}
		return ok
	}
	if p.null() {
		return true
	}
	switch bit {
	case hasAt:
		p.e.EnqueuedAt, ok = p.millis()
	case hasDue:
		p.e.RunAt, ok = p.millis()
	case hasKey:
		p.e.IdempotencyKey, ok = p.text()
	case hasHeaders:
		ok = p.headers()
	case hasData:
		ok = p.data()
	}
	return ok
}

func (p *envelopeParser) text() (string, bool) {
	if p.space() != '"' {
		return "", p.fail("want a string")
	}
	raw, escaped, ok := p.str()
	if !ok {
		return "", false
	}
	return text(raw, escaped), true
}

func (p *envelopeParser) integer() (int64, bool) {
	if c := p.space(); c != '-' && (c < '0' || c > '9') {
		return 0, p.fail("want an integer")
	}
	start := p.i
	raw, integer, ok := p.num()
	if !ok {
		return 0, false
	}
	n, small := smallInt(raw)
	if !small && integer {
		var err error
		n, err = strconv.ParseInt(string(raw), 10, 64)
		integer = err == nil
	}
	if !integer {
		p.i = start
		return 0, p.fail("want an integer of 64 bits")
	}
	return n, true
}

// smallInt reads up to 18 digits, which cannot overflow.
func smallInt(raw []byte) (n int64, ok bool) {
	if len(raw) > 18 {
		return 0, false
	}
	for _, c := range raw {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// millis refuses what is no time between 1970 and 9999: seconds pass, but
// microseconds do not, and every time that passes fits a dead letter.
func (p *envelopeParser) millis() (int64, bool) {
	start := p.i
	n, ok := p.integer()
	if ok && n != clampMillis(n) {
		p.i = start
		return 0, p.fail("want milliseconds between 1970 and 9999")
	}
	return n, ok
}

func (p *envelopeParser) data() bool {
	if p.space() != '"' {
		return p.fail("want a string")
	}
	start := p.i
	raw, escaped, ok := p.str()
	if !ok {
		return false
	}
	if escaped { // some encoders write every slash as \/
		raw = unquote(nil, raw)
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(raw)))
	n, err := base64.StdEncoding.Decode(out, raw)
	if err != nil {
		p.i = start
		return p.fail("want base64 in the standard alphabet with padding")
	}
	p.e.Args, p.e.Binary = out[:n], true
	return true
}

// headers takes an object of strings. A null header counts as absent, and of two
// with one name the last counts.
func (p *envelopeParser) headers() bool {
	if !p.eat('{', "want an object of strings") {
		return false
	}
	if p.space() == '}' {
		p.i++
		return true
	}
	for {
		_, name, ok := p.name()
		if !ok {
			return false
		}
		if p.null() {
			delete(p.e.Headers, text(name, false))
		} else {
			value, ok := p.text()
			if !ok {
				return false
			}
			if p.e.Headers == nil {
				p.e.Headers = make(map[string]string)
			}
			p.e.Headers[text(name, false)] = value
		}
		switch p.space() {
		case ',':
			p.i++
		case '}':
			p.i++
			return true
		default:
			return p.fail("want a comma or a closing brace")
		}
	}
}

// newerVersion returns the version that b states if b is a well-formed object of
// a newer version, else "". A newer version may have changed any other member,
// so nothing else is looked at.
func newerVersion(b []byte) string {
	s := scanner{b: b}
	if _, ok := s.value(0); !ok {
		return ""
	}
	if s.space(); s.i < len(b) {
		return ""
	}
	s = scanner{b: b}
	if !s.eat('{', "") || s.space() == '}' {
		return ""
	}
	for {
		_, name, _ := s.name()
		value, _ := s.value(1)
		if string(name) == "v" {
			n := scanner{b: value}
			if text, integer, ok := n.num(); ok && integer && text[0] != '-' && newer(text) {
				return string(text)
			}
			return ""
		}
		if s.space() != ',' {
			return ""
		}
		s.i++
	}
}

// newer tells whether the digits are a number above [Version], whatever their size.
func newer(digits []byte) bool {
	n, ok := smallInt(digits)
	return !ok || n > Version
}
