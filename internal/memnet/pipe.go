// Package memnet is an in-memory network connection with buffers.
//
// [net.Pipe] has none: each Write waits for a Read. A Redis client writes a
// whole pipeline before it reads the first reply, and the server answers the
// first command before it reads the last, so over net.Pipe both wait for ever
// once a pipeline outgrows the server's read buffer (about 4 KB). Here a Write
// never waits. The price is that a peer which does not read costs memory
// without bound, which is what a Redis server's own output buffer does too.
//
// Nothing here makes a system call, and every timer belongs to whoever reads,
// so a pair that is made in a testing/synctest bubble lives wholly in it.
package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// keepBuffer is the largest buffer that an empty direction holds on to: a
// pipeline of several megabytes must not pin its memory until Close.
const keepBuffer = 64 << 10

// Pipe returns the two ends of a connection. What is written to one end is read
// from the other; closing an end lets the other read what is left and then
// [io.EOF].
func Pipe() (net.Conn, net.Conn) {
	ab, ba := newHalf(), newHalf()
	return &conn{in: ba, out: ab}, &conn{in: ab, out: ba}
}

// half is one direction. Its reader and its writer share it under mu.
type half struct {
	mu   sync.Mutex
	wake sync.Cond // data, a close, or a new or expired read deadline

	buf  []byte // unread bytes are buf[off:]
	off  int
	eof  bool // the writing end closed: drain, then io.EOF
	dead bool // the reading end closed

	readBy  deadline
	writeBy deadline
	// timer wakes the reader at armed. It is armed only by a Read that has to
	// wait, because a client sets a deadline for every command and meets few.
	timer *time.Timer
	armed time.Time
}

type deadline struct{ t time.Time }

func (d deadline) passed() bool { return !d.t.IsZero() && !time.Now().Before(d.t) }

func newHalf() *half {
	h := &half{}
	h.wake.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.dead:
			return 0, net.ErrClosed
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case h.off < len(h.buf):
			n := copy(p, h.buf[h.off:])
			h.off += n
			if h.off == len(h.buf) {
				h.reset()
			}
			return n, nil
		case h.eof:
			return 0, io.EOF
		}
		h.arm()
		h.wake.Wait()
	}
}

// arm makes sure that the reader is woken at its deadline. Called with mu held.
func (h *half) arm() {
	t := h.readBy.t
	if t.IsZero() || t.Equal(h.armed) {
		return
	}
	h.armed = t
	if h.timer != nil {
		h.timer.Reset(time.Until(t))
		return
	}
	h.timer = time.AfterFunc(time.Until(t), func() {
		h.mu.Lock()
		h.armed = time.Time{} // a reader whose deadline has moved arms anew
		h.wake.Broadcast()
		h.mu.Unlock()
	})
}

// reset empties the buffer. Called with mu held.
func (h *half) reset() {
	if cap(h.buf) > keepBuffer {
		h.buf = nil
	}
	h.buf, h.off = h.buf[:0], 0
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.eof:
		return 0, net.ErrClosed
	case h.dead:
		return 0, io.ErrClosedPipe
	case h.writeBy.passed():
		return 0, os.ErrDeadlineExceeded
	}
	if h.off > 0 && len(h.buf)+len(p) > cap(h.buf) {
		// Move the unread bytes down before growing: a busy connection that is
		// never quite empty would grow for ever.
		h.buf = h.buf[:copy(h.buf, h.buf[h.off:])]
		h.off = 0
	}
	h.buf = append(h.buf, p...)
	h.wake.Broadcast()
	return len(p), nil
}

func (h *half) closeWriter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.eof = true
	h.wake.Broadcast()
}

func (h *half) closeReader() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dead = true
	h.buf, h.off = nil, 0
	if h.timer != nil {
		h.timer.Stop()
	}
	h.wake.Broadcast()
}

// conn is one end: it reads from in and writes to out.
type conn struct{ in, out *half }

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }

func (c *conn) Close() error {
	c.out.closeWriter()
	c.in.closeReader()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return addr{} }
func (c *conn) RemoteAddr() net.Addr { return addr{} }

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline also wakes a Read that is already waiting, so that it sees t.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	c.in.readBy.t = t
	c.in.wake.Broadcast()
	return nil
}

// SetWriteDeadline fails later writes from t on. No write ever waits, so there
// is none to wake.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.writeBy.t = t
	return nil
}

type addr struct{}

func (addr) Network() string { return "memory" }
func (addr) String() string  { return "memory" }
