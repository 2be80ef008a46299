package wire

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner walks one JSON text and accepts exactly what encoding/json accepts,
// apart from the depth limit. It builds no values: strings and numbers come back
// as slices of b. A method that returns false has left the reason in msg and the
// offset of the fault in i.
type scanner struct {
	b   []byte
	i   int
	msg string
}

func (s *scanner) fail(msg string) bool {
	s.msg = msg
	return false
}

// space skips white space and returns the byte that follows, or 0 at the end.
// A literal NUL is no token either, so callers need not tell the two apart.
func (s *scanner) space() byte {
	for ; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// eat skips white space and takes c.
func (s *scanner) eat(c byte, want string) bool {
	if s.space() != c {
		return s.fail(want)
	}
	s.i++
	return true
}

// name takes an object member's name and its colon. The name comes back as it is
// written and, where that differs, decoded.
func (s *scanner) name() (raw, name []byte, ok bool) {
	if s.space() != '"' {
		return nil, nil, s.fail("want a member name")
	}
	start := s.i
	text, escaped, ok := s.str()
	if !ok {
		return nil, nil, false
	}
	raw = s.b[start:s.i]
	if escaped {
		text = unquote(nil, text)
	}
	return raw, text, s.eat(':', "want a colon")
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// str takes a string that starts at i. The text is what stands between the
// quotes; escaped tells whether it holds a backslash. Invalid UTF-8 passes here,
// as in encoding/json, and is replaced where the string is decoded.
func (s *scanner) str() (text []byte, escaped, ok bool) {
	b, i := s.b, s.i+1
	start := i
	for {
		// Eight bytes at a time up to a quote, a backslash or a control
		// character. The lowest bit of each mask is exact; false ones stand
		// only above it.
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			q := w ^ '"'*ones
			e := w ^ '\\'*ones
			mask := ((w-' '*ones)&^w | (q-ones)&^q | (e-ones)&^e) & highs
			if mask != 0 {
				i += bits.TrailingZeros64(mask) >> 3
				break
			}
			i += 8
		}
		if i >= len(b) {
			s.i = i
			return nil, false, s.fail("the string does not end")
		}
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			return b[start:i], escaped, true
		case c == '\\':
			escaped = true
			n := escapeLen(b[i:])
			if n == 0 {
				s.i = i
				return nil, false, s.fail("invalid escape in a string")
			}
			i += n
		case c < ' ':
			s.i = i
			return nil, false, s.fail("control character in a string")
		default:
			i++
		}
	}
}

// escapeLen returns the length of the escape that b starts with, 0 if invalid.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if hex4(b[2:]) >= 0 {
			return 6
		}
	}
	return 0
}

// hex4 reads four hex digits, -1 if there are not four.
func hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// num takes a number that starts at i; integer tells that it has neither a
// fraction nor an exponent.
func (s *scanner) num() (text []byte, integer, ok bool) {
	b, i := s.b, s.i
	start := i
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch n := digits(b[i:]); {
	case n == 0:
		s.i = i
		return nil, false, s.fail("invalid number")
	case n > 1 && b[i] == '0':
		s.i = i
		return nil, false, s.fail("a number starts with a zero")
	default:
		i += n
	}
	integer = true
	if i < len(b) && b[i] == '.' {
		integer = false
		n := digits(b[i+1:])
		if n == 0 {
			s.i = i
			return nil, false, s.fail("invalid number")
		}
		i += 1 + n
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		integer = false
		j := i + 1
		if j < len(b) && (b[j] == '+' || b[j] == '-') {
			j++
		}
		n := digits(b[j:])
		if n == 0 {
			s.i = i
			return nil, false, s.fail("invalid number")
		}
		i = j + n
	}
	s.i = i
	return b[start:i], integer, true
}

func digits(b []byte) int {
	for i, c := range b {
		if c < '0' || c > '9' {
			return i
		}
	}
	return len(b)
}

func (s *scanner) literal(want string) bool {
	if len(s.b)-s.i < len(want) || string(s.b[s.i:s.i+len(want)]) != want {
		return s.fail("invalid literal")
	}
	s.i += len(want)
	return true
}

// null takes a null if one is next.
func (s *scanner) null() bool { return s.space() == 'n' && s.literal("null") }

// nest remembers for each open container whether it is an object: a bit each, so
// that 64 levels cost no memory and hostile depth no stack.
type nest struct {
	cur   uint64
	outer []uint64
	n     int
}

func (t *nest) push(object uint64) {
	if t.n > 0 && t.n%64 == 0 {
		t.outer = append(t.outer, t.cur)
	}
	t.cur = t.cur<<1 | object
	t.n++
}

func (t *nest) pop() {
	t.cur >>= 1
	t.n--
	if t.n > 0 && t.n%64 == 0 {
		t.cur = t.outer[len(t.outer)-1]
		t.outer = t.outer[:len(t.outer)-1]
	}
}

func (t *nest) object() bool { return t.cur&1 == 1 }

// value takes one value of any kind, checking it whole, and returns it as it is
// written. Depth is the number of containers that are open around it.
func (s *scanner) value(depth int) (raw []byte, ok bool) {
	var open nest
	first := s.space()
	start := s.i
	for c := first; ; c = s.space() {
		ok := true
		switch {
		case c == '{' || c == '[':
			if depth+open.n >= MaxDepth {
				return nil, s.fail("nested too deep")
			}
			s.i++
			if c == '[' {
				open.push(0)
				if s.space() != ']' {
					continue
				}
			} else {
				open.push(1)
				if s.space() != '}' {
					if !s.skipName() {
						return nil, false
					}
					continue
				}
			}
			s.i++
			open.pop()
		case c == '"':
			_, _, ok = s.str()
		case c == '-' || c >= '0' && c <= '9':
			_, _, ok = s.num()
		case c == 't':
			ok = s.literal("true")
		case c == 'f':
			ok = s.literal("false")
		case c == 'n':
			ok = s.literal("null")
		default:
			ok = s.fail("want a value")
		}
		if !ok {
			return nil, false
		}
		more, ok := s.closeAll(&open)
		if !ok {
			return nil, false
		}
		if !more {
			return s.b[start:s.i], true
		}
	}
}

// closeAll takes what follows a value: the ends of the containers that it
// completes and, if one stays open, the comma and name before its next value.
func (s *scanner) closeAll(open *nest) (more, ok bool) {
	for open.n > 0 {
		switch c := s.space(); {
		case c == ',':
			s.i++
			return true, !open.object() || s.skipName()
		case c == '}' && open.object(), c == ']' && !open.object():
			s.i++
			open.pop()
		case open.object():
			return false, s.fail("want a comma or a closing brace")
		default:
			return false, s.fail("want a comma or a closing bracket")
		}
	}
	return false, true
}

func (s *scanner) skipName() bool {
	if s.space() != '"' {
		return s.fail("want a member name")
	}
	if _, _, ok := s.str(); !ok {
		return false
	}
	return s.eat(':', "want a colon")
}

// text decodes the inside of a string literal.
func text(raw []byte, escaped bool) string {
	if !escaped && utf8.Valid(raw) {
		return string(raw)
	}
	return string(unquote(nil, raw))
}

// unquote appends the decoded inside of a string literal that str accepted. As in
// encoding/json, an invalid byte and a lone surrogate become U+FFFD.
func unquote(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == '\\' && raw[i+1] == 'u':
			r := hex4(raw[i+2:])
			i += 6
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
					low = hex4(raw[i+2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		case c == '\\':
			dst = append(dst, unescaped(raw[i+1]))
			i += 2
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, n := utf8.DecodeRune(raw[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		}
	}
	return dst
}

func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}
