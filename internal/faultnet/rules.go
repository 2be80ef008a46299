package faultnet

import (
	"crypto/sha1"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Match chooses commands by their words: cmd[0] is the name as the client wrote
// it, the rest are the arguments. It must not use the proxy. A nil Match
// chooses every command, those that set a connection up included.
type Match func(cmd []string) bool

// Commands matches commands by name, in any case.
func Commands(names ...string) Match {
	return func(cmd []string) bool {
		return len(cmd) > 0 && slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, cmd[0]) })
	}
}

// Scripts matches EVAL and EVALSHA of the scripts with these SHA1 sums (what
// [redis.Script].Hash returns), or of all scripts when none is given. A call
// that answers NOSCRIPT and the EVAL that follows it are two commands.
func Scripts(shas ...string) Match {
	return func(cmd []string) bool {
		if len(cmd) < 2 {
			return false
		}
		var sha string
		switch strings.ToUpper(cmd[0]) {
		case "EVALSHA", "EVALSHA_RO":
			sha = strings.ToLower(cmd[1])
		case "EVAL", "EVAL_RO":
			sum := sha1.Sum([]byte(cmd[1]))
			sha = hex.EncodeToString(sum[:])
		default:
			return false
		}
		return len(shas) == 0 || slices.Contains(shas, sha)
	}
}

type kindOf int

const (
	none kindOf = iota
	dropRequest
	dropReply
	delayRequest
	delayReply
	refuse
	replaceReply
	repeat
	swallow // what becomes of the answers to the copies that repeat makes
)

// fault is what happens to one command.
type fault struct {
	kind   kindOf
	delay  time.Duration
	text   string
	copies int // of repeat: how often the command runs
	first  bool
}

// Rule is a fault that waits for its command, or a counter. It stays until
// Remove.
type Rule struct {
	p     *Proxy
	match Match
	nth   int
	fault func() fault // called with p.mu held

	seen  int // guarded by p.mu
	hits  int // guarded by p.mu
	fired chan struct{}
}

// Seen returns how many commands matched since the rule was made.
func (r *Rule) Seen() int {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	return r.seen
}

// Hits returns how many commands the rule was applied to.
func (r *Rule) Hits() int {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	return r.hits
}

// Fired is closed when the rule is applied for the first time. The command has
// arrived at the proxy by then and at Redis possibly not.
func (r *Rule) Fired() <-chan struct{} { return r.fired }

// Remove ends the rule. Commands that it was applied to keep their fate.
func (r *Rule) Remove() {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	r.p.rules = slices.DeleteFunc(r.p.rules, func(o *Rule) bool { return o == r })
}

// In all of the rules below nth counts the matching commands from when the rule
// is made: 1 is the next one, and 0 means every one.

// DropReply lets the command run, loses its reply, and closes the connection.
// Replies to earlier commands of its pipeline arrive. Later commands of it run,
// too, as far as they have reached Redis.
func (p *Proxy) DropReply(match Match, nth int) *Rule {
	return p.add(match, nth, fault{kind: dropReply})
}

// DropRequest closes the connection before the command reaches Redis. Earlier
// commands of its pipeline run; whether their replies arrive is open.
func (p *Proxy) DropRequest(match Match, nth int) *Rule {
	return p.add(match, nth, fault{kind: dropRequest})
}

// Delay holds the command's reply back for d, and with it all later replies on
// that connection.
func (p *Proxy) Delay(match Match, nth int, d time.Duration) *Rule {
	return p.add(match, nth, fault{kind: delayReply, delay: d})
}

// DelayRequest holds the command itself back for d, and with it all later ones
// on that connection.
func (p *Proxy) DelayRequest(match Match, nth int, d time.Duration) *Rule {
	return p.add(match, nth, fault{kind: delayRequest, delay: d})
}

// Refuse answers the command with the error ("LOADING Redis is loading") in
// Redis's place. It does not run.
func (p *Proxy) Refuse(match Match, nth int, text string) *Rule {
	return p.add(match, nth, fault{kind: refuse, text: text})
}

// RefuseReply lets the command run and puts the error in place of its reply.
func (p *Proxy) RefuseReply(match Match, nth int, text string) *Rule {
	return p.add(match, nth, fault{kind: replaceReply, text: text})
}

// Repeat has Redis run the command that often and gives the client one of the
// answers: the first or the last. That is what a client does that sends a command
// again, but for the time between.
func (p *Proxy) Repeat(match Match, nth, times int, first bool) *Rule {
	return p.add(match, nth, fault{kind: repeat, copies: times, first: first})
}

// Flaky gives each matching command, with the given probability, one of three
// fates at random: its request is dropped, its reply is dropped, or its reply is
// delayed by up to maxDelay. The same commands in the same order have the same
// fates under the same seed.
func (p *Proxy) Flaky(match Match, probability float64, maxDelay time.Duration) *Rule {
	return p.addRule(&Rule{match: match, fault: func() fault {
		// Always three draws, so that one command's fate does not move the next.
		hit, which, share := p.rnd.Float64() < probability, p.rnd.IntN(3), p.rnd.Float64()
		if !hit {
			return fault{}
		}
		return []fault{
			{kind: dropRequest},
			{kind: dropReply},
			{kind: delayReply, delay: time.Duration(share * float64(maxDelay))},
		}[which]
	}})
}

// Count counts matching commands and does nothing to them; see [Rule.Seen].
func (p *Proxy) Count(match Match) *Rule { return p.add(match, 0, fault{}) }

func (p *Proxy) add(match Match, nth int, f fault) *Rule {
	return p.addRule(&Rule{match: match, nth: nth, fault: func() fault { return f }})
}

func (p *Proxy) addRule(r *Rule) *Rule {
	r.p, r.fired = p, make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, r)
	return r
}

// decide counts the command in every rule that it matches and returns the fault
// of the first that applies.
func (p *Proxy) decide(cmd []string) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	var chosen fault
	for _, r := range p.rules {
		if r.match != nil && !r.match(cmd) {
			continue
		}
		r.seen++
		if r.nth != 0 && r.nth != r.seen {
			continue
		}
		// Drawn even if an earlier rule has won: see Flaky.
		if f := r.fault(); f.kind != none && chosen.kind == none {
			chosen = f
			if r.hits++; r.hits == 1 {
				close(r.fired)
			}
		}
	}
	return chosen
}
