package wire

import (
	"encoding/base64"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string, byte for byte as encoding/json does
// with HTML escaping off: invalid UTF-8 becomes the replacement character.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(append(dst, s[done:i]...), `\ufffd`...)
			case r == '\u2028' || r == '\u2029': // line ends in JavaScript source
				dst = append(append(dst, s[done:i]...), `\u202`...)
				dst = append(dst, hexDigits[r&0xf])
			default:
				i += n
				continue
			}
			i += n
			done = i
			continue
		}
		dst = append(dst, s[done:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		}
		i++
		done = i
	}
	return append(append(dst, s[done:]...), '"')
}

func appendBase64(dst, b []byte) []byte {
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), b), '"')
}

// appendHeaders appends an object with its names sorted, so that equal headers
// have equal bytes.
func appendHeaders(dst []byte, headers map[string]string) []byte {
	var few [8]string
	names := few[:0]
	for name := range headers {
		names = append(names, name)
	}
	slices.Sort(names)
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':')
		dst = appendString(dst, headers[name])
	}
	return append(dst, '}')
}

// appendInt appends a member unless it is zero. The key is the text before the
// value: a comma, the quoted name and the colon.
func appendInt(dst []byte, key string, n int64) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, key...), n, 10)
}

// appendText is appendInt for strings.
func appendText(dst []byte, key, s string) []byte {
	if s == "" {
		return dst
	}
	return appendString(append(dst, key...), s)
}

func appendNumber(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// appendTime is appendInt for times.
func appendTime(dst []byte, key string, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	return appendRFC3339(append(dst, key...), t)
}

func appendRFC3339(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	dst = clampTime(t).AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"')
}

// clampTime keeps t in UTC within the years that RFC 3339 can write; the zero
// time stays what it is.
func clampTime(t time.Time) time.Time {
	t = t.UTC()
	switch y := t.Year(); {
	case y < 0:
		return time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)
	case y > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
	}
	return t
}

// grow makes room for n more bytes. On nil it is one allocation in every build:
// slices.Grow takes two under the race detector.
func grow(dst []byte, n int) []byte {
	if dst == nil {
		return make([]byte, 0, n)
	}
	return slices.Grow(dst, n)
}
