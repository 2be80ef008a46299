package redrivetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/redrive-go/redrive"
)

// queuesState sums up the queues that are not empty.
type queuesState struct {
	queues []string
	busy   int64     // jobs ready or active
	due    time.Time // when the next delayed job is due; zero when there is none
	text   []string
}

func (s *queuesState) add(name string, q redrive.QueueStats) {
	s.queues = append(s.queues, name)
	s.busy += q.Ready + q.Active
	text := fmt.Sprintf("queue %s has %d ready, %d active, %d delayed", name, q.Ready, q.Active, q.Delayed)
	if q.Paused {
		text += " and is paused"
	}
	s.text = append(s.text, text)
}

func (s *queuesState) empty() bool { return len(s.queues) == 0 }

func (s *queuesState) String() string {
	text := strings.Join(s.text, "; ")
	if !s.due.IsZero() {
		text += fmt.Sprintf("; the next delayed job is due in %v", time.Until(s.due).Round(time.Second))
		if !inBubble() {
			text += " (inside synctest.Test no such wait takes time)"
		}
	}
	return text
}
