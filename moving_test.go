package redrive_test

import (
	"context"
	"net"
	"sync"
)

// moving dials whatever address stands there, like a name that a failover moves.
func moving(mu *sync.Mutex, addr *string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		mu.Lock()
		to := *addr
		mu.Unlock()
		return new(net.Dialer).DialContext(ctx, network, to)
	}
}
