// Package store keeps queues in Redis. It is the only package that talks to
// Redis and the only one that knows key names and scripts.
//
// Lua moves, Go decides: a script never decodes a payload and holds no policy.
// Each may run up to four times with the same arguments and has the effect of
// one (I6), handles at most [MaxBatch] jobs, and reads before it writes (I14).
package store

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/enqueue.lua
	enqueueLua string
	//go:embed lua/claim.lua
	claimLua string
	//go:embed lua/fence.lua
	fenceLua string
	//go:embed lua/finish.lua
	finishLua string
	//go:embed lua/putback.lua
	putbackLua string
	//go:embed lua/bury.lua
	buryLua string
	//go:embed lua/beat.lua
	beatLua string
	//go:embed lua/expired.lua
	expiredLua string
	//go:embed lua/leave.lua
	leaveLua string
	//go:embed lua/ring.lua
	ringLua string
	//go:embed lua/stats.lua
	statsLua string
	//go:embed lua/fate.lua
	fateLua string

	enqueueScript = redis.NewScript(enqueueLua)
	claimScript   = newListScript(sharedLua + claimLua)
	finishScript  = newSettleScript(finishLua)
	putbackScript = newSettleScript(putbackLua)
	buryScript    = newSettleScript(buryLua)
	beatScript    = redis.NewScript(beatLua)
	expiredScript = redis.NewScript(expiredLua)
	leaveScript   = redis.NewScript(leaveLua)
	ringScript    = redis.NewScript(ringLua)
	statsScript   = redis.NewScript(statsLua)
	fateScript    = redis.NewScript(fateLua)
)

// sharedLua declares what a settle leaves to a claim that follows it in the same step:
// the time, the end of the worker's lease, its last claim in the lane, and 0 or 1 for
// whether there are ledgers. What is nil or false the claim asks for itself.
const sharedLua = "local time, lease, last, ledger\n"

// A settleScript ends attempts, and claims the next jobs in the same step if asked
// to: then a busy worker needs one round trip and not two.
type settleScript struct{ alone, andClaim *listScript }

func newSettleScript(lua string) settleScript {
	settle := sharedLua + "local function settle(KEYS, ARGV, base, lane)\n" + fenceLua + lua + "end\n"
	return settleScript{
		alone: newListScript(settle + "return {settle(KEYS, ARGV, 0, '')}\n"),
		// The parts stay what they are alone: they share the keys, and the settle finds its
		// arguments behind those of the claim. What the first answers comes last.
		andClaim: newListScript(settle + "local function claim(KEYS, ARGV)\n" + claimLua + "end\n" +
			fmt.Sprintf("local refused = settle(KEYS, ARGV, %d, ARGV[2])\n", claimArgs) +
			"local answer = claim(KEYS, ARGV)\nanswer[#answer + 1] = refused\nreturn answer\n"),
	}
}

// A listScript answers with a flat list of strings, which costs the reader least.
type listScript struct {
	*redis.Script
	lua, hash any // strings: made interfaces once
}

func newListScript(lua string) *listScript {
	s := redis.NewScript(lua)
	return &listScript{Script: s, lua: lua, hash: s.Hash()}
}

// list evaluates a script as run does. The keys are pointers to strings: a string in
// an interface is an allocation.
func (q *Queue) list(ctx context.Context, s *listScript, keys, args []any) ([]string, error) {
	send := func(verb string, script any) ([]string, error) {
		all := append(make([]any, 0, 3+len(keys)+len(args)), verb, script, len(keys))
		cmd := redis.NewStringSliceCmd(ctx, append(append(all, keys...), args...)...)
		cmd.SetFirstKeyPos(3)       // what a cluster goes by
		_ = q.rdb.Process(ctx, cmd) // the error is the command's
		return cmd.Result()
	}
	res, err := send("evalsha", s.hash)
	if replied(err, "NOSCRIPT") {
		res, err = send("eval", s.lua)
	}
	return res, err
}

// A blob is bytes whose pointer go-redis takes for an argument: a slice in an interface
// is an allocation.
type blob []byte

// MarshalBinary returns the bytes.
func (b *blob) MarshalBinary() ([]byte, error) { return *b, nil }

// A Queue performs the operations of one queue. It holds no state besides
// names, and may be copied and used by many goroutines.
type Queue struct {
	rdb  redis.UniversalClient
	name string
	keys Keys
}

// Open returns the queue of that name. Both names are valid by [CheckName].
func Open(rdb redis.UniversalClient, prefix, name string) *Queue {
	return &Queue{rdb: rdb, name: name, keys: NewKeys(prefix, name)}
}

// run evaluates a script by its digest, and by its text when the server does
// not know it (first use, SCRIPT FLUSH, failover).
func run(ctx context.Context, rdb redis.UniversalClient, s *redis.Script, keys []string, args []any) (any, error) {
	res, err := s.EvalSha(ctx, rdb, keys, args...).Result()
	if replied(err, "NOSCRIPT") {
		res, err = s.Eval(ctx, rdb, keys, args...).Result()
	}
	return res, err
}

func (q *Queue) run(ctx context.Context, s *redis.Script, keys []string, args []any) (any, error) {
	return run(ctx, q.rdb, s, keys, args)
}
