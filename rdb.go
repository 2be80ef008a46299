package redrive

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// failoverAddr is what go-redis gives as the address of a FailoverClient.
const failoverAddr = "FailoverClient"

// patientPool is the least size of our pools. go-redis dials no more, but once a second,
// after as many refusals in a row as a pool may have connections: an outage of a moment
// would cost a short lease.
const patientPool = 256

// derive makes a client of the worker's own from the user's: same server, same
// credentials, same dialer. Ours does not resend by itself (MaxRetries: -1: the
// worker's loops do, and know when to stop) and honours deadlines. ok is false
// for a kind of client that cannot be copied; the worker then uses the user's,
// which stays correct, because every script may be resent (I6).
func derive(rdb redis.UniversalClient, pool int) (own redis.UniversalClient, ok bool) {
	switch c := rdb.(type) {
	case *redis.Client:
		o := *c.Options()
		o.MaxRetries, o.ContextTimeoutEnabled, o.PoolSize = -1, true, max(pool, patientPool)
		o.MinIdleConns, o.MaxIdleConns, o.MaxActiveConns = 0, 0, 0
		o.PushNotificationProcessor, o.MaintNotificationsConfig = nil, noNotifications()
		o.DialerRetries = 1
		if o.Addr == failoverAddr {
			// Only the user's client hears of a failover. Its dialer asks the sentinels,
			// so connections that do not grow old find the new master too.
			o.ConnMaxLifetime = time.Second
		}
		return redis.NewClient(&o), true
	case *redis.ClusterClient:
		o := *c.Options()
		// The cluster client counts redirections with MaxRedirects; it must follow
		// MOVED, so only its other resends are bounded by our deadlines.
		o.ContextTimeoutEnabled, o.PoolSize = true, max(pool, patientPool)
		o.MinIdleConns, o.MaxIdleConns, o.MaxActiveConns = 0, 0, 0
		o.MaintNotificationsConfig, o.DialerRetries = noNotifications(), 1
		return redis.NewClusterClient(&o), true
	}
	return rdb, false
}

// noNotifications turns off go-redis's maintenance notifications: the copied
// options hold a processor with the user's handlers, and a cluster client leaves a
// goroutine of theirs behind when it is closed.
func noNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// sleep waits, or returns early and false when ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
