package redrive_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests below play scenarios in virtual time: hours of leases, backoff, outages
// and shutdowns in fractions of a second, see bubblePlan. A seed fixes the scenario.
// It does not fix how the goroutines interleave: one that has failed may take a few
// more runs to fail again. Each test weighs the scenario in its own way, and all of
// them check all invariants.
//
// By default a test plays as many seeds as fit into its budget. REDRIVE_LONG=1 plays
// longSeeds of each; REDRIVE_SEED=n plays that one.
const (
	bubbleBudget = 1500 * time.Millisecond
	fewestSeeds  = 4
	longSeeds    = 200
)

var (
	allLeases = []time.Duration{time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute}
	allFaults = []faultKind{faultReset, faultDown, faultHole, faultLoading, faultDrop, faultLate, faultFlaky}
	allEnds   = []outcome{fail, fail, failRuled, failPermanent, panics, goexits, asksRetry, snoozes, discards}
)

func TestI1_I3_I4_StormsLoseNothingAndEveryRunHasACause(t *testing.T) {
	playSeeds(t, bubbleProfile{
		horizons: []time.Duration{30 * time.Second, 90 * time.Second, 4 * time.Minute}, leases: allLeases,
		jobs: 30, workers: 6, tasks: []layerPlan{plain, plain, alone, once}, outcomes: allEnds,
		failing: 0.4, delayed: 0.3, deaf: 0.3, slow: 0.03, crash: 0.4, faults: 6, faultKind: allFaults, pauses: 2,
		shows: []string{"release", "failure", "done", "dead", "prompt"},
	})
}

func TestI3_NobodyIsTakenForDeadAfterAnOutage(t *testing.T) {
	playSeeds(t, bubbleProfile{
		horizons: []time.Duration{time.Minute, 2 * time.Minute}, leases: allLeases[:2],
		jobs: 30, workers: 3, tasks: []layerPlan{plain}, outcomes: []outcome{fail},
		failing: 0.1, deaf: 0.3, crash: 0.2, faults: 8, faultKind: []faultKind{faultDown, faultHole, faultLoading},
		shows: []string{"release"},
	})
}

func TestI8_HoursOfFailuresWaitAsThePolicyPreviews(t *testing.T) {
	playSeeds(t, bubbleProfile{
		horizons: []time.Duration{30 * time.Second, 5 * time.Minute}, leases: allLeases,
		jobs: 60, workers: 3, tasks: []layerPlan{plain, plain, plain, plain}, outcomes: allEnds,
		failing: 0.9, slow: 0.01, crash: 0.2, faults: 1, faultKind: allFaults,
		shows: []string{"failure", "snooze", "retry", "dead", "discard", "done"},
	})
}

func TestI9_ACrashedWorkersJobsAreTakenOverInTime(t *testing.T) {
	playSeeds(t, bubbleProfile{
		horizons: []time.Duration{30 * time.Second, 3 * time.Minute}, leases: allLeases,
		jobs: 30, workers: 7, tasks: []layerPlan{plain, once}, outcomes: allEnds,
		failing: 0.1, deaf: 0.5, slow: 0.1, crash: 0.8, faults: 1, faultKind: allFaults,
		shows: []string{"reap", "takeover"},
	})
}

func TestI10_I11_SingletonsAreAloneAndEffectsHappenOnce(t *testing.T) {
	playSeeds(t, bubbleProfile{
		horizons: []time.Duration{30 * time.Second, 3 * time.Minute}, leases: allLeases,
		jobs: 30, workers: 5, tasks: []layerPlan{alone, alone, once, once}, outcomes: []outcome{fail, panics, goexits, failPermanent},
		failing: 0.2, delayed: 0.1, deaf: 0.5, slow: 0.03, crash: 0.4, faults: 5, faultKind: allFaults,
		shows: []string{"I11", "Idempotent", "snooze"},
	})
}

func TestI12_JobsAreNeverEarlyAndSoonWhereAWorkerIsIdle(t *testing.T) {
	playSeeds(t, bubbleProfile{
		horizons: []time.Duration{time.Minute, 10 * time.Minute}, leases: allLeases,
		jobs: 60, workers: 4, tasks: []layerPlan{plain, plain, plain}, outcomes: []outcome{fail, asksRetry, snoozes},
		failing: 0.5, delayed: 0.7, crash: 0.2, faults: 1, faultKind: allFaults, pauses: 1, roomy: true,
		shows: []string{"prompt", "delay", "retry", "snooze"},
	})
}

func TestI15_I16_ShutdownsEndInTimeWhateverRedisDoes(t *testing.T) {
	playSeeds(t, bubbleProfile{
		horizons: []time.Duration{30 * time.Second, 2 * time.Minute}, leases: allLeases,
		jobs: 30, workers: 8, tasks: []layerPlan{plain, plain, alone, once}, outcomes: allEnds,
		failing: 0.2, deaf: 0.5, slow: 0.1, crash: 0.3, faults: 8, faultKind: allFaults, pauses: 1,
		shows: []string{"interrupt", "release"},
	})
}

// playSeeds plays scenarios, until one of them breaks an invariant.
func playSeeds(t *testing.T, p bubbleProfile) {
	from, to, budget := 1, fewestSeeds, bubbleBudget
	if s := os.Getenv("REDRIVE_SEED"); s != "" {
		seed, err := strconv.Atoi(s)
		require.NoError(t, err, "REDRIVE_SEED")
		from, to, budget, p.shows = seed, seed, 0, nil
	} else if os.Getenv("REDRIVE_LONG") != "" {
		to, budget = longSeeds, 0
	}
	begun, hours, runs := time.Now(), time.Duration(0), 0
	checked := make(map[string]int)
	seed := from
	for ; seed <= to || time.Since(begun) < budget; seed++ {
		l := playBubble(t, newBubblePlan(uint64(seed), p))
		l.check()
		if len(l.findings) > 0 {
			t.Fatal(l.report(t.Name()))
		}
		hours += l.events[len(l.events)-1].at
		runs += len(l.runs)
		for what, n := range l.checked {
			checked[what] += n
		}
	}
	t.Logf("%d scenarios: %d attempts in %v, checked %v", seed-from, runs, hours.Round(time.Second), checked)
	for _, what := range p.shows {
		require.NotZero(t, checked[what], "no scenario had a %s to check", what)
	}
}

// report says what is broken, how to play it again, and what had happened.
func (l *bubbleLedger) report(test string) string {
	var b strings.Builder
	for i, f := range l.findings {
		if i == 10 {
			fmt.Fprintf(&b, "\nand %d more", len(l.findings)-i)
			break
		}
		fmt.Fprintf(&b, "\n%s is broken: %s %s", f.invariant, f.job, f.text)
	}
	first := l.findings[0].job
	fmt.Fprintf(&b, "\nplay it again, often: REDRIVE_SEED=%d go test -run '^%s$' -count=20 .\nthe story", l.plan.seed, test)
	if first != "" {
		fmt.Fprintf(&b, " of %s", first)
	}
	fmt.Fprintf(&b, ":\n%s", l.story(first))
	return b.String()
}
