package store

import "github.com/redis/go-redis/v9"

// TranscriptScripts names every script that is sent to Redis, as transcripts do.
var TranscriptScripts = map[string]*redis.Script{
	"enqueue":           enqueueScript,
	"claim":             claimScript,
	"finish":            finishScript.alone,
	"finish_and_claim":  finishScript.andClaim,
	"putback":           putbackScript.alone,
	"putback_and_claim": putbackScript.andClaim,
	"bury":              buryScript.alone,
	"bury_and_claim":    buryScript.andClaim,
	"beat":              beatScript,
	"expired":           expiredScript,
	"leave":             leaveScript,
	"stats":             statsScript,
	"fate":              fateScript,
	"dead_page":         deadPageScript,
	"dead_take":         deadTakeScript,
	"dead_settle":       deadSettleScript,
	"dead_trim":         deadTrimScript,
	"dead_release":      deadReleaseScript,
	"dead_hooks":        deadHooksScript,
	"dead_heard":        deadHeardScript,
	"lock_acquire":      lockAcquireScript,
	"lock_renew":        lockRenewScript,
	"lock_release":      lockReleaseScript,
	"idem_claim":        idemClaimScript,
	"idem_extend":       idemExtendScript,
	"idem_complete":     idemCompleteScript,
	"idem_release":      idemReleaseScript,
}

// IdempotencyKey names the record of an effect.
func IdempotencyKey(prefix, task, key string) string { return idempotencyKey(prefix, task, key) }
