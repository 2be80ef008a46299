package store

import (
	"strings"

	"github.com/redis/go-redis/v9"
)

// TranscriptScripts names every script that is sent to Redis, as transcripts do.
func TranscriptScripts() map[string]*redis.Script {
	scripts := make(map[string]*redis.Script)
	for name, s := range Scripts() {
		scripts[strings.ReplaceAll(name, "+", "_and_")] = s
	}
	return scripts
}

// IdempotencyKey names the record of an effect.
func IdempotencyKey(prefix, task, key string) string { return idempotencyKey(prefix, task, key) }
