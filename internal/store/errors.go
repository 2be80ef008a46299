package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrFull: Redis is at its memory limit and refuses writes that grow it.
var ErrFull = errors.New("redis is out of memory")

// ErrOvertaken: the call arrived after a later one of the same caller.
var ErrOvertaken = errors.New("call was overtaken by a later one")

// transientPrefixes start the replies of a server that will do what was asked
// later: while it loads, fails over, moves a slot or runs a long script.
var transientPrefixes = []string{
	"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MOVED", "ASK",
	"NOREPLICAS", "MISCONF", "UNBLOCKED", "max number of clients reached",
}

// Transient reports whether an operation may be sent again: the network failed,
// or the server says that it cannot answer now. Whether the operation was
// performed is unknown (I6 makes sending it again safe).
func Transient(err error) bool {
	if err == nil {
		return false
	}
	var netErr net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout),
		errors.As(err, &netErr):
		return true
	}
	return replied(err, transientPrefixes...)
}

// replied reports whether the server answered with an error that starts with one
// of the prefixes.
func replied(err error, prefixes ...string) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	text := strings.TrimPrefix(reply.Error(), "ERR ")
	for _, p := range prefixes {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	// An error of a command that a script called names the script first in Redis 6.
	i := strings.LastIndex(text, ": -")
	return i > 0 && slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(text[i+3:], p) })
}

// Demoted reports whether the server that answered is not the master any more.
// go-redis closes the connection then, and the next one finds the new master.
func Demoted(err error) bool { return replied(err, "READONLY") }

// Denied reports whether the server refuses the user: a matter of
// configuration, which sending again does not mend.
func Denied(err error) bool {
	return replied(err, "NOAUTH", "WRONGPASS", "NOPERM", "AUTH", "unknown command") ||
		err != nil && strings.Contains(err.Error(), "can't run this command")
}

// wrap names the operation and the queue, and marks a full server.
func (q *Queue) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if replied(err, "OOM") {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%s on queue %q: %w", op, q.name, err)
}

// malformed reports a reply that no script of ours gives.
func (q *Queue) malformed(op string, reply any) error {
	return fmt.Errorf("%s on queue %q: unexpected reply %.200s", op, q.name, fmt.Sprint(reply))
}

// Refused reports whether the error proves that nothing was done: the server
// answered with an error (scripts check before they write, I14), or the command
// never left.
func Refused(err error) bool {
	var reply redis.Error
	var op *net.OpError
	switch {
	case err == nil:
		return false
	case errors.As(err, &reply), errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrClosed):
		return true
	}
	return errors.As(err, &op) && op.Op == "dial"
}
