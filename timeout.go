package redrive

import (
	"context"
	"sync"
	"time"
)

// A timeoutContext is a context that ends with the cause [ErrTimeout]. It behaves as
// the one of [context.WithTimeoutCause], and makes that one only when somebody has
// reason to wait for it: a handler that returns at once never starts a timer. If its
// time is up and its parent is done before anybody looks, the parent's cause counts.
type timeoutContext struct {
	context.Context // the parent
	deadline        time.Time

	mu     sync.Mutex
	real   context.Context // nil until somebody asks
	cancel context.CancelFunc
	ended  bool
}

// withTimeout returns a context that ends after timeout, or when end is called.
func withTimeout(parent context.Context, timeout time.Duration) (ctx context.Context, end func()) {
	c := &timeoutContext{Context: parent, deadline: time.Now().Add(timeout)}
	return c, c.end
}

func (c *timeoutContext) end() {
	over := c.Context.Err() != nil || !time.Now().Before(c.deadline)
	c.mu.Lock()
	if over && !c.ended {
		c.arm() // it ended before
	}
	c.ended = true
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// arm returns the context that c stands for; mu is held.
func (c *timeoutContext) arm() context.Context {
	switch {
	case c.real != nil:
	case c.ended: // before its parent, which may be done by now
		c.real, c.cancel = context.WithCancel(context.WithoutCancel(c.Context))
		c.cancel()
	default:
		c.real, c.cancel = context.WithDeadlineCause(c.Context, c.deadline, ErrTimeout)
	}
	return c.real
}

// over returns the context that c stands for if it may be done, or somebody waits
// for it; else nil.
func (c *timeoutContext) over() context.Context {
	late := !time.Now().Before(c.deadline)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil && !c.ended && !late {
		return nil
	}
	return c.arm()
}

func (c *timeoutContext) Deadline() (time.Time, bool) {
	if d, ok := c.Context.Deadline(); ok && d.Before(c.deadline) {
		return d, true
	}
	return c.deadline, true
}

func (c *timeoutContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.arm().Done()
}

func (c *timeoutContext) Err() error {
	if real := c.over(); real != nil {
		return real.Err()
	}
	return c.Context.Err()
}

// Value also answers [context.Cause], which asks for the context that holds the
// cause.
func (c *timeoutContext) Value(key any) any {
	if real := c.over(); real != nil {
		return real.Value(key)
	}
	return c.Context.Value(key)
}
