package redrive_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/store"
)

// hurt makes a queue with one damage of most kinds. Of its jobs "kept" is whole.
func (s *stage) hurt() {
	dead, ctx := s.buried(1)[0], s.ctx()
	s.put("owned")
	q := store.Open(s.clean.rdb, s.b.Prefix, redrive.DefaultQueue)
	_, err := q.Beat(ctx, "ghost", time.Hour)
	require.NoError(s.t, err)
	c, err := q.Claim(ctx, store.ClaimCall{Worker: "ghost", Call: 1, N: 1})
	require.NoError(s.t, err)
	require.Len(s.t, c.Jobs, 1)
	jobs := s.put("kept", "lost", "twice")
	k := store.NewKeys(s.b.Prefix, redrive.DefaultQueue)
	_, err = s.clean.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.ZRem(ctx, k.Workers, "ghost")
		p.LRem(ctx, k.Ready, 0, jobs[1].ID)
		p.RPush(ctx, k.Ready, jobs[2].ID)
		p.HSet(ctx, k.Ledger, "stray", "{}")
		p.HSet(ctx, k.Stats, "snoozed", "many")
		p.RPush(ctx, k.Bell, 1, 1)
		p.ZRem(ctx, k.Dead, dead)
		p.ZAdd(ctx, k.DeadTasks, redis.Z{Member: "never"})
		p.ZAdd(ctx, k.TaskHooks("act"), redis.Z{Member: "stray", Score: 4e12})
		p.ZAdd(ctx, k.Hooks, redis.Z{Member: "act", Score: 4e12})
		return nil
	})
	require.NoError(s.t, err)
}

// hurtKinds are what hurt damages, in the order of a report.
var hurtKinds = []redrive.Damage{
	redrive.DamageBadCounter, redrive.DamageBell, redrive.DamageLetterMisfiled, redrive.DamageNotIndexed,
	redrive.DamageOwnerGone, redrive.DamageSeveralPlaces, redrive.DamageStrayHook, redrive.DamageStrayLedger,
	redrive.DamageTaskMislisted,
}

// findings says how much of each kind a report found and mended.
func findings(r redrive.CheckReport) []string {
	out := make([]string, 0, len(r.Findings))
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s: %d/%d", f.Damage, f.Mended, f.Found))
	}
	return out
}

// checking is the use of Check on a damaged queue. It reads in so many steps that it
// relies on a client that resends, as go-redis does by default. One that gives up
// after four sends knows nothing of what the fifth would have told: only then may the
// report of the next check lack something.
func checking(name string, repair bool) use {
	mended, want := 0, make([]string, 0, len(hurtKinds))
	if repair {
		mended = 1
	}
	for _, kind := range hurtKinds {
		want = append(want, fmt.Sprintf("%s: %d/1", kind, mended))
	}
	scripts := []string{
		"check_rest", "check_owner", "check_look", "check_ids", "check_moves", "check_mend", "check_letter", "check_task",
		"zscan", "zrange", "llen", "hmget",
	}
	return use{name, scripts, func(s *stage) string {
		s.hurt()
		if rdb, ok := s.rdb.(*redis.Client); ok {
			o := *rdb.Options()
			o.MaxRetries = 3
			resends := redis.NewClient(&o)
			s.t.Cleanup(func() { _ = resends.Close() })
			var err error
			s.client, err = redrive.NewClient(resends, redrive.ClientOptions{Prefix: s.b.Prefix, Logger: quiet})
			require.NoError(s.t, err)
		}
		s.arm()
		var report redrive.CheckReport
		failed := 0
		s.tries(func() (err error) {
			report, err = s.client.Check(s.ctx(), redrive.DefaultQueue, repair)
			if err != nil {
				failed++
				require.Subset(s.t, want, findings(report))
			}
			return err
		})
		if failed > 0 && repair {
			require.LessOrEqual(s.t, failed, 1)
			require.Subset(s.t, want, findings(report))
		} else {
			require.Equal(s.t, want, findings(report))
		}
		if !repair { // nothing has been
			report, err := s.clean.client.Check(s.ctx(), redrive.DefaultQueue, true)
			require.NoError(s.t, err)
			require.Equal(s.t, strings.ReplaceAll(strings.Join(want, " "), "0/1", "1/1"), strings.Join(findings(report), " "))
		}
		report, err := s.clean.client.Check(s.ctx(), redrive.DefaultQueue, false)
		require.NoError(s.t, err)
		_, err = store.Open(s.clean.rdb, s.b.Prefix, redrive.DefaultQueue).Leave(s.ctx(), "ghost")
		require.NoError(s.t, err)
		return s.finish(report.Sound())
	}, "true kept:1 lost:1 owned:1 permanent:1 twice:1 dead=1 enqueued=5 succeeded=4 released=1 died=1"}
}

var checkUses = []use{
	checking("Check", false),
	checking("Check that repairs", true),
}
