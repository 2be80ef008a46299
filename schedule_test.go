package redrive

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Two claims overlap, and the answer to the one that Redis performed first comes
// last: it must not undo what the other, or a bell, has told.
func TestAStaleAnswerForgetsNothing(t *testing.T) {
	t.Parallel()
	q := &share{weight: 1}
	s := &schedule{slots: 10, shares: []*share{q}}
	s.feed(q)
	old := s.grants()[0]
	due := time.Now().Add(time.Hour)
	s.claimed(q, 0, yield{news: old.news, due: due})
	s.claimed(q, old.n, yield{news: old.news})
	require.Equal(t, due, q.due)
	require.False(t, q.hungry)

	q.claiming = false
	s.feed(q)
	old = s.grants()[0]
	s.feed(q) // the bell, while the claim is on its way
	s.claimed(q, old.n, yield{news: old.news})
	require.True(t, q.hungry)
	require.Equal(t, 10, s.available())
}
