package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestValid_AgreesWithEncodingJSON(t *testing.T) {
	tokens := []string{"{", "}", "[", "]", ",", ":", `"a"`, `"\n"`, "-1", "0", "1.5e+3", "true", "null", " ", ""}
	// Every text of up to five tokens, then some that go wrong inside a token.
	var walk func(prefix string, n int)
	walk = func(prefix string, n int) {
		require.Equal(t, json.Valid([]byte(prefix)), Valid([]byte(prefix)), "%q", prefix)
		if n == 0 {
			return
		}
		for _, tok := range tokens[:len(tokens)-1] {
			walk(prefix+tok, n-1)
		}
	}
	walk("", 4)
	for _, s := range []string{
		"-", "+1", "00", "01", "-01", "1.", ".1", "1.e1", "1e", "1e+", "1E-05", "-0.0", "0x1", "1_0", "truE", "tru",
		"nulll", "NaN", `"`, `"\`, `"\u`, `"\u12`, `"\u12"`, `"\u123G"`, `"\uABcd"`, `"\a"`, `"\'"`, "\"\x1f\"",
		"\"\x7f\"", "\"\xff\xfe\"", "\"12345678\"", "\"1234567\x00\"", "\"12345678\\\"", "\"12345678\\\"\"", "\xef\xbb\xbf1",
		`{"a":1,}`, `{1:2}`, `{"a"}`, "\v1", "1\f", "1 2", "[]]", "{}}", "[1 2]", "1\x00", "\x00",
	} {
		require.Equal(t, json.Valid([]byte(s)), Valid([]byte(s)), "%q", s)
	}
}

func TestValid_FindsAStringsEndAtEveryOffset(t *testing.T) {
	for n := range 40 {
		for _, c := range []byte{'"', '\\', 0, 0x1f, ' ', '!', '#', '[', ']', 0x7f, 0x80, 0xa2, 0xdc, 0xff} {
			for _, fill := range []string{"a", "\xff", "!", "\x80"} {
				s := []byte(`"` + strings.Repeat(fill, n) + string([]byte{c}) + strings.Repeat(fill, 9) + `"`)
				require.Equal(t, json.Valid(s), Valid(s), "%q", s)
			}
		}
	}
}

func TestNest_KeepsKindsAcrossWords(t *testing.T) {
	var n nest
	kind := func(i int) uint64 { return uint64(i*7/3+i/64) & 1 }
	for range 3 { // down and up again: popping a word must restore the one before
		for i := range 200 {
			n.push(kind(i))
		}
		for i := 199; i >= 0; i-- {
			require.Equal(t, kind(i) == 1, n.object(), i)
			n.pop()
		}
		require.Zero(t, n.n)
	}
}

func TestAppendString_MatchesEncodingJSON(t *testing.T) {
	check := func(s string) {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		require.NoError(t, enc.Encode(s))
		require.Equal(t, strings.TrimSuffix(want.String(), "\n"), string(appendString(nil, s)), "%q", s)
	}
	for c := range 256 {
		check(string([]byte{byte(c)}))
		check("ab" + string([]byte{byte(c)}) + "cd")
		check(string(rune(c * 257)))
	}
	for _, s := range []string{"", "\u2027\u2028\u2029\u202a", "\xed\xa0\x80", "\xf0\x9f\x98", "\xf0\x9f\x98\x80", "</script>&"} {
		check(s)
	}
}
