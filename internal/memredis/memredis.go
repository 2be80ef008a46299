// Package memredis is a Redis server inside the process: miniredis behind
// in-memory connections. It opens no port and makes no system call, so it works
// inside a testing/synctest bubble, where an hour of leases takes milliseconds.
//
// miniredis does not age TTLs by itself. Its ClockTTL does, at the cost of a
// pass over all keys for every command. Here keys age when bytes arrive from a
// client, which is the last moment at which anybody could tell: no goroutine,
// nothing to stop, and in a bubble no timer that moves the virtual clock. How
// often is bounded by what a pass costs, see [Server.age].
package memredis

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/redrive-go/redrive/internal/memnet"
)

// Addr is the address that clients believe they talk to. It is numeric because
// looking up a name goes through a channel of the net package, which does not
// belong to a synctest bubble.
const Addr = "127.0.0.1:6379"

// ErrClosed is returned by Dial after Close.
var ErrClosed = errors.New("in-process redis: server is closed")

// ageShare bounds the time spent on ageing keys: a pass that took d is followed
// by at least ageShare×d without one, so at most a fifth of the server's time.
const ageShare = 4

// Server is one in-process Redis. Its methods may be called concurrently.
type Server struct {
	mini *miniredis.Miniredis

	mu      sync.Mutex // guards closed and clients
	closed  bool
	clients []*redis.Client

	skew atomic.Int64 // of the server's clock against ours, ns

	ageMu sync.Mutex    // guards the two below
	aged  time.Time     // until when TTLs have been counted down
	rest  time.Duration // how long to leave them alone since then
}

// Start returns a running, empty server.
func Start() (*Server, error) {
	s := &Server{mini: miniredis.NewMiniRedis(), aged: time.Now()}
	// The first Dial starts miniredis without a listener; there is no other way
	// to. Its own unbuffered connection is of no use.
	c, err := s.mini.Dial()
	if err != nil {
		return nil, err
	}
	return s, c.Close()
}

// Dial connects to the server. Its signature is that of [redis.Options].Dialer;
// network and address are ignored.
func (s *Server) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	near, far := memnet.Pipe()
	s.mini.Server().ServeConn(&serverConn{Conn: far, s: s})
	return near, nil
}

// Options returns fresh options for a client of this server.
func (s *Server) Options() *redis.Options {
	return &redis.Options{
		Addr:   Addr,
		Dialer: s.Dial,
		// A blocking command must give up when its context does.
		ContextTimeoutEnabled: true,
		// Connections cost nothing here. A pool that runs dry waits on a timer
		// which go-redis shares between all clients of the process, and a timer
		// must not be shared between a synctest bubble and the world.
		PoolSize: 256,
		// A closed server stays closed; the default of five attempts 100 ms
		// apart would only delay the news.
		DialerRetries: 1,
		// Notifications of a hosted Redis: nothing here ever sends them.
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// Client returns a new client, which Close closes if its user has not.
func (s *Server) Client() *redis.Client {
	c := redis.NewClient(s.Options())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close() // the caller's commands answer redis.ErrClosed
		return c
	}
	s.clients = append(s.clients, c)
	return c
}

// Close closes the clients that Client returned, cuts all other connections,
// and waits until they have ended. All data is gone. Later calls do nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	clients := s.clients
	s.clients = nil
	s.mu.Unlock()

	var errs []error
	for _, c := range clients {
		if err := c.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.mini.Close()
	return errors.Join(errs...)
}

// age counts the TTLs down to now, unless it did so a moment ago. A key that is
// set between two passes loses the part of the interval that lay before it: its
// TTL may end early by up to ageShare passes, which is under a millisecond with
// a thousand keys. In a synctest bubble a pass takes no time, so TTLs are exact.
func (s *Server) age() {
	s.ageMu.Lock()
	defer s.ageMu.Unlock()
	now := time.Now()
	elapsed := now.Sub(s.aged)
	if elapsed <= 0 || elapsed < s.rest {
		return
	}
	s.aged = now
	s.mini.FastForward(elapsed)
	s.rest = ageShare * time.Since(now)
}

// Skew sets the server's clock apart from ours, from the next command on: what TIME
// says jumps. TTLs go on as they were.
func (s *Server) Skew(d time.Duration) {
	if d == 0 {
		d = 1 // miniredis keeps a time that was set; this one is as good as ours
	}
	s.skew.Store(int64(d))
}

// serverConn is the server's end of a connection. It ages the keys before the
// server sees what arrived, outside any lock of miniredis.
type serverConn struct {
	net.Conn
	s *Server
}

func (c *serverConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.s.age()
		if skew := c.s.skew.Load(); skew != 0 {
			c.s.mini.SetTime(time.Now().Add(time.Duration(skew)))
		}
	}
	return n, err
}
