package faultnet

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// session is one connection through the proxy. Its two goroutines, requests and
// replies, end when either end closes or close is called.
type session struct {
	p        *Proxy
	client   net.Conn // in memory, so a write to it never waits
	server   net.Conn
	toServer *bufio.Writer // used by requests only

	mu         sync.Mutex // guards the three below
	toClient   *bufio.Writer
	calls      []call // commands whose replies are due, oldest first
	subscribed bool

	hung atomic.Bool
	once sync.Once
	done chan struct{}
}

// call is a command on its way. One that was refused has its answer already and
// waits for its turn among the replies.
type call struct {
	fault  fault
	answer string
}

func (s *session) close() {
	s.once.Do(func() {
		close(s.done)
		_ = s.client.Close()
		_ = s.server.Close()
	})
}

// pass waits while the proxy is blackholed, for good once the session is hung, and
// reports whether the session lives.
func (s *session) pass() bool {
	if s.hung.Load() {
		<-s.done
	}
	for hole := s.p.blackholed(); hole != nil; hole = s.p.blackholed() {
		select {
		case <-hole:
		case <-s.done:
			return false
		}
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// requests moves commands from the client to the server.
func (s *session) requests() {
	defer s.close()
	r := bufio.NewReader(s.client)
	for {
		cmd, raw, err := readCommand(r)
		if !s.pass() {
			return
		}
		if err != nil {
			s.p.complain(err)
			return
		}
		f := s.p.decide(cmd)
		if f.kind == dropRequest || f.kind == delayRequest {
			// What came before it in the pipeline is on its way.
			if s.toServer.Flush() != nil {
				return
			}
		}
		switch f.kind {
		case dropRequest:
			return
		case delayRequest:
			if !s.wait(f.delay) {
				return
			}
		case refuse:
			if !s.answer(f.text) {
				return
			}
		}
		if f.kind != refuse && s.forward(cmd, raw, f) != nil {
			return
		}
		if r.Buffered() == 0 && s.toServer.Flush() != nil {
			return
		}
	}
}

// forward sends a command on, or as many of it as its rule says.
func (s *session) forward(cmd []string, raw []byte, f fault) error {
	heard := 0 // which of the answers the client gets
	if !f.first {
		heard = max(0, f.copies-1)
	}
	for i := range max(1, f.copies) {
		answer := f
		if i != heard {
			answer = fault{kind: swallow}
		}
		s.expect(cmd, answer)
		if _, err := s.toServer.Write(raw); err != nil {
			return err
		}
	}
	return nil
}

// expect notes that a reply to cmd is due.
func (s *session) expect(cmd []string, f fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(cmd) > 0 && subscribes(strings.ToLower(cmd[0])) {
		s.subscribed = true // answered by pushes, one for each channel
		return
	}
	s.calls = append(s.calls, call{fault: f})
}

// answer answers a command in the server's place, when its turn comes.
func (s *session) answer(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call{answer: text})
	return s.answers() == nil && s.toClient.Flush() == nil
}

// answers sends the answers whose turn it is. Called with mu held.
func (s *session) answers() error {
	for len(s.calls) > 0 && s.calls[0].answer != "" {
		if _, err := s.toClient.WriteString("-" + s.calls[0].answer + "\r\n"); err != nil {
			return err
		}
		s.calls = s.calls[1:]
	}
	return nil
}

// replies moves replies from the server to the client.
func (s *session) replies() {
	defer s.close()
	r := bufio.NewReader(s.server)
	var raw []byte
	for {
		var err error
		if cap(raw) > 1<<20 {
			raw = nil
		}
		raw, err = readFrame(r, raw[:0])
		if !s.pass() {
			return
		}
		if err != nil {
			s.p.complain(err)
			return
		}
		if !s.reply(raw, r.Buffered() == 0) {
			return
		}
	}
}

// reply gives one value from the server to the client, or does to it what the
// command's rule says. It reports whether the session goes on.
func (s *session) reply(raw []byte, last bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A reply that nobody asked for is the server's parting word: too many
	// clients, for one.
	if !isPush(raw, s.subscribed) && len(s.calls) > 0 {
		f := s.calls[0].fault
		switch f.kind {
		case dropReply:
			_ = s.toClient.Flush() // the replies before it are not lost
			return false
		case delayReply:
			if s.toClient.Flush() != nil {
				return false
			}
			s.mu.Unlock() // still the oldest call, so nothing overtakes it
			alive := s.wait(f.delay)
			s.mu.Lock()
			if !alive {
				return false
			}
		case swallow:
			s.calls = s.calls[1:]
			return !last || s.answers() == nil && s.toClient.Flush() == nil
		case replaceReply:
			raw = []byte("-" + f.text + "\r\n")
		}
		s.calls = s.calls[1:]
	}
	if _, err := s.toClient.Write(raw); err != nil {
		return false
	}
	if s.answers() != nil {
		return false
	}
	return !last || s.toClient.Flush() == nil
}
