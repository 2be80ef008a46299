package store

import "github.com/redis/go-redis/v9"

// clockScript is clockLua as a script, for who looks for its calls.
var clockScript = redis.NewScript(clockLua)

// Scripts returns every script by name: for tests, which lose the reply of each.
// "finish+claim" and its like settle and claim in one call.
func Scripts() map[string]*redis.Script {
	return map[string]*redis.Script{
		"enqueue": enqueueScript,
		"claim":   claimScript.Script,
		"finish":  finishScript.alone.Script, "finish+claim": finishScript.andClaim.Script,
		"putback": putbackScript.alone.Script, "putback+claim": putbackScript.andClaim.Script,
		"bury": buryScript.alone.Script, "bury+claim": buryScript.andClaim.Script,
		"beat": beatScript, "expired": expiredScript, "leave": leaveScript, "ring": ringScript,
		"stats": statsScript, "fate": fateScript, "clock": clockScript,
		"dead_page": deadPageScript, "dead_take": deadTakeScript, "dead_settle": deadSettleScript,
		"dead_trim": deadTrimScript, "dead_release": deadReleaseScript,
		"dead_hooks": deadHooksScript, "dead_heard": deadHeardScript,
		"lock_acquire": lockAcquireScript, "lock_renew": lockRenewScript, "lock_release": lockReleaseScript,
		"idem_claim": idemClaimScript, "idem_extend": idemExtendScript,
		"idem_complete": idemCompleteScript, "idem_release": idemReleaseScript,
		"check_ids": checkIDsScript, "check_look": checkLookScript, "check_moves": checkMovesScript,
		"check_mend": checkMendScript, "check_rest": checkRestScript, "check_owner": checkOwnerScript,
		"check_letter": checkLetterScript, "check_task": checkTaskScript,
	}
}
