// Package faultnet is a proxy in front of a Redis that breaks connections where
// a test wants them broken. It reads the protocol, so it knows which reply
// belongs to which command, also within a pipeline: "execute the third EVALSHA
// and lose its answer" is one rule.
//
// Through [Proxy.Dialer] nothing touches the network, so a proxy in front of an
// in-process Redis works inside a testing/synctest bubble. [Proxy.Addr] gives a
// port instead, for other processes and for clients without a dialer.
//
// MONITOR and CLIENT REPLY OFF are not understood; nothing here uses them.
package faultnet

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redrive-go/redrive/internal/memnet"
)

// DialFunc connects to the Redis. It is the type of [redis.Options].Dialer.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// Proxy stands in front of one Redis. Its methods may be called concurrently.
type Proxy struct {
	t    testing.TB // nil outside of tests
	dial DialFunc
	done chan struct{} // closed by Close
	wg   sync.WaitGroup

	mu       sync.Mutex // guards all below
	rnd      *rand.Rand
	rules    []*Rule
	sessions map[*session]struct{}
	listener net.Listener          // nil until Addr
	outer    map[net.Conn]struct{} // what the listener accepted
	hole     chan struct{}         // nil unless blackholed; closed by Heal
	down     bool
	closed   bool
}

// New returns a proxy in front of the Redis at target ("host:port"). With a t
// it is closed when the test ends; t may be nil. Random faults follow seed.
func New(t testing.TB, target string, seed uint64) *Proxy {
	return NewDialer(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", target)
	}, seed)
}

// NewDialer is [New] for a Redis that dial reaches, such as an in-process one.
func NewDialer(t testing.TB, dial DialFunc, seed uint64) *Proxy {
	p := &Proxy{
		t: t, dial: dial, done: make(chan struct{}),
		rnd:      rand.New(rand.NewPCG(seed, 0)),
		sessions: map[*session]struct{}{}, outer: map[net.Conn]struct{}{},
	}
	if t != nil {
		t.Cleanup(p.Close)
	}
	return p
}

// Dialer connects through the proxy without a port; see [redis.Options].Dialer.
func (p *Proxy) Dialer() DialFunc { return p.connect }

// Addr returns the loopback address of the proxy, which listens from the first
// call on. Not for use in a synctest bubble.
func (p *Proxy) Addr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic("faultnet: " + err.Error())
		}
		p.listener = l
		p.wg.Go(func() { p.accept(l) })
		if p.closed {
			_ = l.Close()
		}
	}
	return p.listener.Addr().String()
}

// accept joins every connection to the port with one through connect, so that
// there is one kind of session. The buffers of that one keep a client which
// writes a large pipeline before it reads from standing still.
func (p *Proxy) accept(l net.Listener) {
	for {
		outer, err := l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			if !p.hold(outer) {
				return
			}
			defer p.release(outer)
			inner, err := p.connect(context.Background(), "tcp", "")
			if err != nil {
				return
			}
			p.wg.Go(func() {
				_, _ = io.Copy(inner, outer)
				_ = inner.Close()
			})
			_, _ = io.Copy(outer, inner)
			_ = inner.Close()
		})
	}
}

// hold has Close close c, whose client may not read what is written to it.
func (p *Proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.outer[c] = struct{}{}
	return true
}

func (p *Proxy) release(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.outer, c)
	_ = c.Close()
}

func (p *Proxy) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	refused := &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	for hole := p.blackholed(); hole != nil; hole = p.blackholed() {
		select {
		case <-hole:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.done:
			return nil, refused
		}
	}
	if p.refuses() {
		return nil, refused
	}
	server, err := p.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	near, far := memnet.Pipe()
	s := &session{
		p: p, client: far, server: server,
		toClient: bufio.NewWriter(far), toServer: bufio.NewWriter(server),
		done: make(chan struct{}),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down || p.closed {
		s.close()
		return nil, refused
	}
	p.sessions[s] = struct{}{}
	var halves sync.WaitGroup
	halves.Go(s.requests)
	halves.Go(s.replies)
	p.wg.Go(func() {
		halves.Wait()
		p.mu.Lock()
		delete(p.sessions, s)
		p.mu.Unlock()
	})
	return near, nil
}

func (p *Proxy) refuses() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down || p.closed
}

func (p *Proxy) blackholed() chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hole
}

// Cut closes every connection there is. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		s.close()
	}
}

// Hang leaves every connection there is half open: it stays, passes nothing on any
// more, and hides that an end was closed. New ones are accepted. They count as open
// until Cut or Close.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		s.hung.Store(true)
	}
}

// Down is Cut, and refuses new connections until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	p.Cut()
}

// Up ends Down.
func (p *Proxy) Up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// Blackhole holds all bytes back, in both directions, and hides that an end was
// closed: a cable was pulled. Connections stay open, new ones are not
// established, and commands that Redis has received run on.
func (p *Proxy) Blackhole() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hole == nil {
		p.hole = make(chan struct{})
	}
}

// Heal ends Blackhole. What was held back goes on its way.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hole != nil {
		close(p.hole)
		p.hole = nil
	}
}

// Connections returns how many connections are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}

// Close cuts everything and waits until all goroutines of the proxy have ended.
func (p *Proxy) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.done)
	}
	if p.listener != nil {
		_ = p.listener.Close()
	}
	for c := range p.outer {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.Cut()
	p.wg.Wait()
}

// complain reports what is wrong with the test or with faultnet itself. The
// goroutines that call it end before the test does.
func (p *Proxy) complain(err error) {
	if p.t != nil && errors.Is(err, errProtocol) {
		p.t.Error(err)
	}
}

// wait sleeps for d, or until the session ends, and reports whether it lives.
func (s *session) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.done:
		return false
	}
}
