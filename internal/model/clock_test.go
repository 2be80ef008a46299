package model_test

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// scriptClock has the scripts of a client read the time from a hash with the fields s
// and us, since the clock of a redis-server cannot be set. Nothing else of a script
// changes.
type scriptClock struct {
	key  string
	sums map[string]string // digest of a script → that of the one that runs in its place
}

// noScript is what a server answers that does not know a script.
type noScript struct{}

func (noScript) Error() string { return "NOSCRIPT" }
func (noScript) RedisError()   {}

func (c *scriptClock) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *scriptClock) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := c.replace(cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

func (c *scriptClock) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if err := c.replace(cmd); err != nil {
				return err
			}
		}
		return next(ctx, cmds)
	}
}

func (c *scriptClock) replace(cmd redis.Cmder) error {
	args := cmd.Args()
	switch cmd.Name() {
	case "evalsha": // the server may know the script as it was: only its text gets through
		sum, ok := c.sums[args[1].(string)]
		if !ok {
			return noScript{}
		}
		args[1] = sum
	case "eval":
		text := args[1].(string)
		timed := strings.ReplaceAll(text, "redis.call('TIME')", fmt.Sprintf("redis.call('HMGET', '%s', 's', 'us')", c.key))
		c.sums[digest(text)] = digest(timed)
		args[1] = timed
	}
	return nil
}

func digest(text string) string {
	sum := sha1.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}
