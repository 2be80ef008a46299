// Package embedded runs a Redis inside the process, for development, demos and
// tests: a program that uses redrive then needs nothing installed.
//
//	server, err := embedded.Start()
//	if err != nil {
//		return err
//	}
//	defer server.Close()
//	client, err := redrive.NewClient(server.Client(), redrive.ClientOptions{})
//
// It is not for production. Everything is held in memory and lost at Close, no
// other process can reach it, and it is many times slower than Redis. It knows
// the commands that redrive needs and most others, but no cluster, no
// replication, no memory limit and no access control.
//
// No port is opened, so any number of servers run side by side, and a server
// that is started in a testing/synctest bubble follows the bubble's clock.
package embedded

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/memredis"
)

// Server is a Redis inside the process. Its methods may be called concurrently.
type Server struct{ mem *memredis.Server }

// Start returns a running, empty server.
func Start() (*Server, error) {
	mem, err := memredis.Start()
	if err != nil {
		return nil, fmt.Errorf("embedded: start: %w", err)
	}
	return &Server{mem: mem}, nil
}

// Client returns a client of the server, a new one at every call, so that its
// user may close it. It is a *redis.Client: further clients may be made from
// its Options, which hold the in-memory dialer. Close closes it too.
func (s *Server) Client() redis.UniversalClient { return s.mem.Client() }

// Close closes every client that Client returned, ends all connections and
// drops all data. No goroutine of the server outlives it. Later calls do
// nothing.
func (s *Server) Close() error {
	if err := s.mem.Close(); err != nil {
		return fmt.Errorf("embedded: close: %w", err)
	}
	return nil
}
