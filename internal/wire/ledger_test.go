package wire

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestLedgerAdd_KeepsTheFirstThreeAndTheLastSeven(t *testing.T) {
	var l Ledger
	for n := 1; n <= 25; n++ {
		l.Add(Error{Attempt: n})
		require.Len(t, l.Errors, min(n, FirstErrors+LastErrors))
		require.Equal(t, max(0, n-10), l.Dropped)
	}
	var kept []int
	for _, e := range l.Errors {
		kept = append(kept, e.Attempt)
	}
	require.Equal(t, []int{1, 2, 3, 19, 20, 21, 22, 23, 24, 25}, kept)

	// A history that is too long already, as a foreign hand may leave it.
	l = Ledger{Errors: make([]Error, 100), Dropped: 1}
	l.Add(Error{Attempt: 101})
	require.Len(t, l.Errors, 10)
	require.Equal(t, 92, l.Dropped)
	require.Equal(t, 101, l.Errors[9].Attempt)
}

func TestLedgerAdd_CutsTextBetweenRunes(t *testing.T) {
	add := func(s string) string {
		var l Ledger
		l.Add(Error{Text: s})
		return l.Errors[0].Text
	}
	whole := strings.Repeat("x", MaxErrorText)
	require.Equal(t, whole, add(whole))
	require.Equal(t, whole[:MaxErrorText-3]+"…", add(whole+"x"))
	require.Equal(t, "a\ufffdb", add("a\xffb"))
	for shift := range 4 {
		s := strings.Repeat("x", shift) + strings.Repeat("😀", MaxErrorText)
		got := add(s)
		require.True(t, utf8.ValidString(got))
		require.Greater(t, len(got), MaxErrorText-4)
		require.LessOrEqual(t, len(got), MaxErrorText)
		require.True(t, strings.HasSuffix(got, "😀…"), shift)
	}
	// Replacing what is invalid must not grow the text past its bound.
	got := add(strings.Repeat("\xffx", MaxErrorText/2))
	require.LessOrEqual(t, len(got), MaxErrorText)
	require.True(t, strings.HasSuffix(got, "…"))
	require.True(t, utf8.ValidString(got))
}

func TestParseLedger_NothingIsTheZeroLedger(t *testing.T) {
	for _, b := range [][]byte{nil, {}} {
		l, err := ParseLedger(b)
		require.NoError(t, err)
		require.Zero(t, l)
	}
}

func TestParseLedger_DamageYieldsTheZeroLedger(t *testing.T) {
	for in, want := range map[string]string{
		`{`:                              "unexpected end",
		`null`:                           `member "v" is missing`,
		`[]`:                             "cannot unmarshal array",
		`{}`:                             `member "v" is missing`,
		`{"v":"1"}`:                      `member "v" is "1"`,
		`{"v":0}`:                        `member "v" is 0`,
		`{"v":1,"r":"2"}`:                "cannot unmarshal string",
		`{"v":1,"r":-2}`:                 `member "r" is -2`,
		`{"v":1,"g":2147483647}`:         `member "g" is 2147483647`,
		`{"v":1,"c":-1}`:                 `member "c" is -1`,
		`{"v":1,"s":-1}`:                 `member "s" is -1`,
		`{"v":1,"i":-1}`:                 `member "i" is -1`,
		`{"v":1,"x":-1}`:                 `member "x" is -1`,
		`{"v":1,"r":2,"rr":{"0":-1}}`:    `member "rr" holds -1 for rule 0`,
		`{"v":1,"r":2,"rr":{"-3":1}}`:    `member "rr" holds 1 for rule -3`,
		`{"v":1,"r":2,"e":[{"at":"x"}]}`: "cannot unmarshal string",
	} {
		l, err := ParseLedger([]byte(in))
		require.ErrorIs(t, err, ErrMalformed, in)
		require.ErrorContains(t, err, want, in)
		require.Zero(t, l, in)
	}
	l, err := ParseLedger([]byte(`{"r":"many","v":2}`))
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "version 2 of the ledger")
	require.Zero(t, l)
}

func TestParseLedger_IgnoresUnknownMembers(t *testing.T) {
	l, err := ParseLedger([]byte(`{"v":1,"r":2,"new":{"a":1},"e":[{"n":1,"new":[]}]}`))
	require.NoError(t, err)
	require.Equal(t, Ledger{Retries: 2, Errors: []Error{{Attempt: 1}}}, l)
}

func TestLedgerAppend_Allocations(t *testing.T) {
	l := goldenLedgers()["ledger-usual"]
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { l.Append(nil) }), 1.0)
}
