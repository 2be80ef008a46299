package store_test

import (
	"cmp"
	"context"
	"crypto/sha1"
	"encoding"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/redistest"
	"github.com/redrive-go/redrive/internal/store"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

const transcriptDir = "testdata/transcripts"

func transcriptPath(script string) string { return filepath.Join(transcriptDir, script+".txt") }

// A scene brings Redis into a state and calls one script, through the API.
type scene struct {
	name string
	play func(*stage)
}

var scenes = map[string][]scene{}

// TestTranscripts calls every script through the API and compares what goes over
// the wire, and what is in Redis before and after, with the transcripts. Each call
// is made twice (I6).
func TestTranscripts(t *testing.T) {
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		rdb := b.Client()
		t.Cleanup(b.Flush) // before the audit: a scene may hold what no queue does
		for script, list := range scenes {
			t.Run(script, func(t *testing.T) {
				var out strings.Builder
				fmt.Fprintf(&out, "Transcripts of %s; README.md says how to read them.\n", script)
				for _, sc := range list {
					s := newStage(t, b, rdb)
					sc.play(s)
					require.Equal(t, []string{script}, s.played, "%s: calls its script once", sc.name)
					fmt.Fprintf(&out, "\n=== %s\n%s", sc.name, s.text)
				}
				if *update && !b.Real() { // a real server has the last word
					require.NoError(t, os.WriteFile(transcriptPath(script), []byte(out.String()), 0o644))
				}
				want, err := os.ReadFile(transcriptPath(script))
				require.NoError(t, err)
				require.Equal(t, string(want), out.String(), "to accept the new one: go test ./internal/store -run TestTranscripts -update")
			})
		}
	})
}

// TestTranscriptsAreAllThatAClientNeeds plays the files themselves: what stands
// before a call, and its keys and arguments, give the reply and the state written.
func TestTranscriptsAreAllThatAClientNeeds(t *testing.T) {
	files, err := filepath.Glob(transcriptPath("*"))
	require.NoError(t, err)
	require.Len(t, files, len(store.TranscriptScripts()))
	redistest.Each(t, func(t *testing.T, b *redistest.Backend) {
		rdb := b.Client()
		t.Cleanup(b.Flush) // before the audit: a scene may hold what no queue does
		for _, path := range files {
			script := strings.TrimSuffix(filepath.Base(path), ".txt")
			t.Run(script, func(t *testing.T) {
				text, err := os.ReadFile(path)
				require.NoError(t, err)
				list := strings.Split(string(text), "\n=== ")[1:]
				require.NotEmpty(t, list)
				for _, one := range list {
					name, want, _ := strings.Cut(strings.TrimSuffix(one, "\n")+"\n", "\n")
					s := newStage(t, b, rdb)
					s.more = true // TestTranscripts knows which
					s.once = !strings.Contains(want, "\n-- again\n")
					keys, argv := s.load(want)
					err := store.TranscriptScripts()[script].Eval(t.Context(), s.rdb, keys, argv...).Err()
					require.True(t, err == nil || errors.Is(err, redis.Nil), "%s: %v", name, err) // nil is a reply, too
					require.Equal(t, want, s.text, name)
				}
			})
		}
	})
}

// TestEveryScriptHasATranscript: no .lua file without one. A file that stands
// before or after others is shown by theirs.
func TestEveryScriptHasATranscript(t *testing.T) {
	t.Parallel()
	for script := range store.TranscriptScripts() {
		require.NotEmpty(t, scenes[script], script)
		require.FileExists(t, transcriptPath(script))
	}
	files, err := filepath.Glob("lua/*.lua")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	before := regexp.MustCompile(`(?i)stands (?:before|after) (.*)`)
	for _, path := range files {
		shown := []string{strings.TrimSuffix(filepath.Base(path), ".lua")}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		if m := before.FindStringSubmatch(strings.SplitN(string(text), "\n", 2)[0]); m != nil {
			shown = regexp.MustCompile(`\w+\.lua`).FindAllString(m[1], -1)
			require.NotEmpty(t, shown, path)
		}
		for _, script := range shown {
			require.Contains(t, scenes, strings.TrimSuffix(script, ".lua"), path)
		}
	}
}

// A stage is an empty Redis for one call, and what is written of it.
type stage struct {
	*store.Queue
	t    *testing.T
	b    *redistest.Backend
	bare redis.UniversalClient
	rdb  redis.UniversalClient // writes down what scripts do, by the stage's clock
	keys store.Keys
	sub  *redis.PubSub

	clock  clock
	only   string // the script that is written down, when the API calls others, too
	skip   int    // so many calls of it are not
	once   bool   // the call is not repeated
	more   bool   // the repeated call goes on where the first ended
	played []string
	text   string
}

func newStage(t *testing.T, b *redistest.Backend, bare redis.UniversalClient) *stage {
	t.Helper()
	ctx := t.Context()
	at, err := bare.Time(ctx).Result()
	require.NoError(t, err)
	s := &stage{t: t, b: b, bare: bare, keys: store.NewKeys(b.Prefix, "q")}
	s.strike()
	// Not a whole ms: who rounds up is found out. The TTLs that Redis keeps count
	// from its own clock, so this one starts with it.
	s.clock = clock(at.UnixMilli()*1000 + 250)
	rdb := redis.NewClient(b.Options())
	rdb.AddHook(s)
	s.rdb = rdb
	s.Queue = store.Open(rdb, b.Prefix, "q")
	s.sub = bare.Subscribe(ctx, s.keys.Channel)
	_, err = s.sub.Receive(ctx)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = rdb.Close()
		_ = s.sub.Close()
	})
	return s
}

func (s *stage) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *stage) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook has scripts sent as text, gives them the clock, and writes them down.
func (s *stage) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		switch cmd.Name() {
		case "evalsha":
			cmd.SetErr(unknownScript{})
			return unknownScript{}
		case "eval":
			text := wireText(args[1])
			args[1] = fixedClock(s.clock) + text
			script := scriptName(text)
			if s.passes(script) {
				return next(ctx, cmd)
			}
			n, _ := strconv.Atoi(wireText(args[2]))
			words := make([]string, 0, len(args)-3)
			for _, a := range args[3:] {
				words = append(words, s.plain(wireText(a))) // the channel is an argument
			}
			s.played = append(s.played, script)
			return s.record(ctx, script, words[:n], words[n:], cmd, next)
		}
		return next(ctx, cmd)
	}
}

// passes reports whether a call is not the one that the scene is about.
func (s *stage) passes(script string) bool {
	if s.only == "" {
		return false
	}
	if script == s.only {
		s.skip--
	}
	return script != s.only || s.skip != -1
}

type unknownScript struct{}

func (unknownScript) Error() string { return "NOSCRIPT" }
func (unknownScript) RedisError()   {}

// fixedClock is put before a script, so that it reads that time.
func fixedClock(c clock) string {
	return fmt.Sprintf(`local redis = (function(real) return {
  call = function(name, ...)
    if name == 'TIME' then return {'%d', '%d'} end
    return real.call(name, ...)
  end,
  pcall = real.pcall, sha1hex = real.sha1hex,
} end)(redis)
`, int64(c)/1e6, int64(c)%1e6)
}

func scriptName(text string) string {
	sum := sha1.Sum([]byte(text))
	for name, s := range store.TranscriptScripts() {
		if s.Hash() == hex.EncodeToString(sum[:]) {
			return name
		}
	}
	return "a script without a name"
}

// wireText is an argument as go-redis sends it.
func wireText(v any) string {
	switch v := v.(type) {
	case *string:
		return *v
	case []byte:
		return string(v)
	case encoding.BinaryMarshaler:
		b, _ := v.MarshalBinary()
		return string(b)
	}
	return fmt.Sprint(v)
}

func (s *stage) record(ctx context.Context, script string, keys, argv []string, cmd redis.Cmder, next redis.ProcessHook) error {
	var b strings.Builder
	before := s.clock.state(s.dump())
	fmt.Fprintf(&b, "-- before\n%s-- call\nKEYS\n", before)
	for _, key := range keys {
		fmt.Fprintf(&b, "  %s\n", key)
	}
	b.WriteString("ARGV\n")
	var rows []string
	for _, words := range argRows(script, argv) {
		rows = append(rows, s.clock.row(words))
	}
	lines(&b, "  ", rows)

	first := redis.NewCmd(ctx, cmd.Args()...) // the caller's may not tell numbers from strings
	if err := next(ctx, first); err != nil && !errors.Is(err, redis.Nil) {
		cmd.SetErr(err)
		return err
	}
	given := give(cmd, first.Val())
	reply, after := s.clock.reply(first.Val()), s.clock.state(s.dump())
	fmt.Fprintf(&b, "-- reply\n%s", reply)
	if heard := s.heard(); len(heard) > 0 {
		b.WriteString("-- published\n")
		for _, m := range heard {
			fmt.Fprintf(&b, "redrive:{q}:ended %s\n", quoted(m))
		}
	}
	fmt.Fprintf(&b, "-- after\n%s", either("as before\n", before, after))

	if !s.once {
		again := redis.NewCmd(ctx, cmd.Args()...)
		if err := next(ctx, again); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		s.heard()
		b.WriteString("-- again\n")
		reply2, after2 := s.clock.reply(again.Val()), s.clock.state(s.dump())
		if !s.more {
			require.Equal(s.t, after, after2, "I6: %s sent again wrote again", script)
		}
		b.WriteString(either("the same reply\n", reply, reply2))
		b.WriteString(either("the same state\n", after, after2))
	}
	s.text = b.String()
	return given
}

func either(same, a, b string) string {
	switch {
	case a == b:
		return same
	case b == "":
		return "nothing\n"
	}
	return b
}

// plain is a key as it is with the default prefix; other words stay as they are.
func (s *stage) plain(key string) string {
	if rest, ok := strings.CutPrefix(key, s.b.Prefix+":"); ok {
		return store.DefaultPrefix + ":" + rest
	}
	return key
}

// full is the inverse of plain.
func (s *stage) full(key string) string {
	if rest, ok := strings.CutPrefix(key, store.DefaultPrefix+":"); ok {
		return s.b.Prefix + ":" + rest
	}
	return key
}

// ttlUnit is what TTLs are rounded up to, since they run: all that scenes set are
// multiples.
const ttlUnit = 10_000

// all lists the keys that are there.
func (s *stage) all() (keys []string) {
	ctx := s.t.Context()
	it := s.bare.Scan(ctx, 0, s.b.Prefix+":*", 1000).Iterator()
	for it.Next(ctx) {
		keys = append(keys, it.Val())
	}
	require.NoError(s.t, it.Err())
	return keys
}

// strike clears the stage for the next scene.
func (s *stage) strike() {
	if keys := s.all(); len(keys) > 0 {
		require.NoError(s.t, s.bare.Del(s.t.Context(), keys...).Err())
	}
}

// dump reads what is in Redis.
func (s *stage) dump() state {
	ctx, out := s.t.Context(), make(state)
	for _, key := range s.all() {
		v := stored{kind: s.bare.Type(ctx, key).Val()}
		if ttl := s.bare.PTTL(ctx, key).Val(); ttl > 0 {
			v.ttl = (ttl.Milliseconds() - 10 + ttlUnit) / ttlUnit * ttlUnit
		}
		switch v.kind {
		case "hash":
			for field, value := range s.bare.HGetAll(ctx, key).Val() {
				v.rows = append(v.rows, []string{field, value})
			}
			slices.SortFunc(v.rows, func(a, b []string) int { return cmp.Compare(a[0], b[0]) })
		case "zset":
			for _, z := range s.bare.ZRangeWithScores(ctx, key, 0, -1).Val() {
				v.rows = append(v.rows, []string{strconv.FormatFloat(z.Score, 'f', -1, 64), z.Member.(string)})
			}
		case "list":
			for _, e := range s.bare.LRange(ctx, key, 0, -1).Val() {
				v.rows = append(v.rows, []string{e})
			}
		case "string":
			v.rows = append(v.rows, []string{s.bare.Get(ctx, key).Val()})
		}
		out[s.plain(key)] = v
	}
	return out
}

// load brings Redis into the state that stands before a call, and returns the call.
func (s *stage) load(text string) (keys []string, argv []any) {
	ctx := s.t.Context()
	_, text, _ = strings.Cut(text, "-- before\n")
	text, _, _ = strings.Cut(text, "-- reply\n")
	before, call, _ := strings.Cut(text, "-- call\nKEYS\n")
	want, err := s.clock.parseState(before)
	require.NoError(s.t, err)
	for key, v := range want {
		for _, r := range v.rows {
			switch v.kind {
			case "hash":
				err = s.bare.HSet(ctx, s.full(key), r[0], r[1]).Err()
			case "zset":
				score, _ := strconv.ParseFloat(r[0], 64)
				err = s.bare.ZAdd(ctx, s.full(key), redis.Z{Score: score, Member: r[1]}).Err()
			case "list":
				err = s.bare.RPush(ctx, s.full(key), r[0]).Err()
			case "string":
				err = s.bare.Set(ctx, s.full(key), r[0], 0).Err()
			}
			require.NoError(s.t, err)
		}
		if v.ttl > 0 {
			require.NoError(s.t, s.bare.PExpire(ctx, s.full(key), time.Duration(v.ttl)*time.Millisecond).Err())
		}
	}
	names, args, _ := strings.Cut(call, "ARGV\n")
	for _, key := range strings.Fields(names) {
		keys = append(keys, s.full(key))
	}
	for _, line := range unlines(strings.Split(args, "\n")) {
		words, err := s.clock.words(line)
		require.NoError(s.t, err)
		for _, w := range words {
			argv = append(argv, s.full(w))
		}
	}
	return keys, argv
}

// heard returns what was published on the queue's channel since it was last asked.
func (s *stage) heard() []string {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	const end = "end of what was published"
	require.NoError(s.t, s.bare.Publish(ctx, s.keys.Channel, end).Err())
	var out []string
	for {
		m, err := s.sub.ReceiveMessage(ctx)
		require.NoError(s.t, err)
		if m.Payload == end {
			return out
		}
		out = append(out, m.Payload)
	}
}
