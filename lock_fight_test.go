//go:build unix

package redrive_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/redistest"
)

// fightTTL is the TTL of the lock that is fought for.
const fightTTL = time.Second

func init() {
	redistest.RegisterSubprocess("fighter", fighterProcess)
	redistest.RegisterSubprocess("sleeper", sleeperProcess)
}

// sleeperProcess stops itself while it holds a lock, and looks at its context first
// thing when it goes on: before any timer has run, having one processor.
func sleeperProcess() {
	runtime.GOMAXPROCS(1)
	db, _ := strconv.Atoi(os.Getenv("DB"))
	rdb := redis.NewClient(&redis.Options{Addr: os.Getenv("ADDR"), DB: db})
	task := redrive.NewTask[redrive.None, redrive.None]("prize", redrive.TaskOptions{})
	handler := redrive.Singleton(rdb, redrive.SingletonOptions{Prefix: os.Getenv("PREFIX"), TTL: fightTTL, Logger: quiet})(
		task.Handler(redrive.NoResult(func(ctx context.Context, _ *redrive.Job[redrive.None]) error {
			fmt.Println("holding")
			begin := time.Now()
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			for time.Since(begin) < fightTTL { // should the signal be late
			}
			err := ctx.Err()
			fmt.Println("awake", err != nil, errors.Is(context.Cause(ctx), redrive.ErrLockLost))
			return nil
		})))
	_, _ = handler.Process(context.Background(), &redrive.Message{ID: "j", Task: "prize", Payload: []byte("{}")})
}

func TestI11_AProcessThatWasStoppedKnowsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Redis(t))
	p := redistest.StartSubprocess(t, "sleeper",
		"ADDR="+r.b.Addr, fmt.Sprintf("DB=%d", r.b.Options().DB), "PREFIX="+r.b.Prefix)
	p.WaitLine("holding")
	lock, err := r.locker(redrive.LockerOptions{Scope: "prize"}).Acquire(r.ctx(), "prize")
	require.NoError(t, err)
	require.NoError(t, p.Process.Signal(syscall.SIGCONT))
	require.Equal(t, " true true", p.WaitLine("awake"))
	require.NoError(t, lock.Refresh(r.ctx()))
	require.NoError(t, lock.Release(r.ctx()))
	require.NoError(t, p.Wait())
}

// fighterProcess fights for one lock, with a Locker or, every other process, as the
// handler of a typed task under Singleton.
func fighterProcess() {
	db, _ := strconv.Atoi(os.Getenv("DB"))
	rdb := redis.NewClient(&redis.Options{Addr: os.Getenv("ADDR"), DB: db})
	f := &fighter{resource: os.Getenv("RESOURCE")}
	var err error
	if f.ledger, err = os.OpenFile(os.Getenv("LEDGER"), os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		panic(err)
	}
	fight := f.byLocker(rdb)
	if os.Getenv("SINGLETON") != "" {
		fight = f.bySingleton(rdb)
	}
	fmt.Println("ready")
	for {
		fight()
	}
}

type fighter struct {
	ledger   *os.File
	resource string
}

func (f *fighter) byLocker(rdb redis.UniversalClient) func() {
	l, err := redrive.NewLocker(rdb, redrive.LockerOptions{Prefix: os.Getenv("PREFIX"), Scope: "prize", TTL: fightTTL, Logger: quiet})
	if err != nil {
		panic(err)
	}
	return func() {
		lock, err := l.Acquire(context.Background(), "prize")
		if err != nil {
			panic(err)
		}
		f.hold(lock.Context())
		_ = lock.Release(context.Background())
	}
}

func (f *fighter) bySingleton(rdb redis.UniversalClient) func() {
	task := redrive.NewTask[redrive.None, redrive.None]("prize", redrive.TaskOptions{})
	mux := redrive.NewMux()
	mux.Use(redrive.Singleton(rdb, redrive.SingletonOptions{
		Prefix: os.Getenv("PREFIX"), TTL: fightTTL, OnConflict: redrive.Fail, Logger: quiet,
	}))
	mux.Handle("prize", task.Handler(redrive.NoResult(func(ctx context.Context, _ *redrive.Job[redrive.None]) error {
		f.hold(ctx)
		return nil
	})))
	return func() {
		_, err := mux.Process(context.Background(), &redrive.Message{ID: "j", Task: "prize", Payload: []byte("{}")})
		if errors.Is(err, redrive.ErrLockHeld) {
			time.Sleep(time.Millisecond + rand.N(40*time.Millisecond))
		} else if err != nil {
			panic(err)
		}
	}
}

// hold notes instants at which the context was live: it takes the time, and then
// looks at the context. A context never comes back to life, so one that is live at
// the look was live at that time, and at any time before back to its acquisition.
func (f *fighter) hold(ctx context.Context) {
	token, _ := redrive.FencingToken(ctx)
	live := func() bool {
		at := time.Now().UnixNano()
		if ctx.Err() != nil {
			return false
		}
		f.note("live", at, token)
		return true
	}
	samples := 1 + rand.N(20)
	if rand.N(2) == 0 {
		samples = 300 + rand.N(1000) // long enough to be renewed, and to be struck
	}
	for range samples {
		if !live() {
			// It does not know any better, so it writes: the token is for that.
			if f.write(token) {
				f.note("late-accepted", time.Now().UnixNano(), token)
			} else {
				f.note("late-refused", time.Now().UnixNano(), token)
			}
			return
		}
		if !f.write(token) && live() {
			f.note("live-refused", time.Now().UnixNano(), token)
		}
		time.Sleep(time.Millisecond)
	}
	f.note("end", time.Now().UnixNano(), token)
}

func (f *fighter) note(what string, at, token int64) {
	fmt.Fprintln(f.ledger, what, at, token, os.Getpid()) // one write: it is appended whole
}

// write is a resource that checks fencing tokens.
func (f *fighter) write(token int64) (accepted bool) {
	file, err := os.OpenFile(f.resource, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		panic(err)
	}
	var buf [32]byte
	n, _ := file.ReadAt(buf[:], 0)
	highest, _ := strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
	if token < highest {
		return false
	}
	_, err = file.WriteAt(fmt.Appendf(nil, "%-20d", token), 0)
	return err == nil
}

// note is one line of the ledger.
type note struct {
	what      string
	at, token int64
	pid       int
}

func parseNote(line string) (n note, ok bool) {
	_, err := fmt.Sscan(line, &n.what, &n.at, &n.token, &n.pid)
	return n, err == nil
}

// TestI11_SixteenProcessesFightForOneLock stops and kills processes: the one that
// holds the lock, and while the dead or the stopped hold it, random ones. What it claims:
//
//   - each token's context was live from its first to its last sample; no two of
//     these intervals have an instant in common, and the later has the higher token
//   - a resource that refuses lower tokens than it has seen refuses nobody whose
//     context is live, and does refuse stopped processes that come back
//   - the lock is never without a live holder for longer than its TTL after the last
//     holder died or was stopped, and the moment that a waiter needs
//
// What it cannot claim, and nothing can: that a process which is stopped between its
// look at the context and its next instruction knows of it.
func TestI11_SixteenProcessesFightForOneLock(t *testing.T) {
	fight := 5 * time.Second
	if os.Getenv("REDRIVE_LONG") != "" {
		fight = 20 * time.Second
	}
	r := newRig(t, redistest.Redis(t))
	ledger := filepath.Join(t.TempDir(), "ledger")
	require.NoError(t, os.WriteFile(ledger, nil, 0o600))
	spawned := 0
	spawn := func() *redistest.Process {
		env := []string{
			"ADDR=" + r.b.Addr, fmt.Sprintf("DB=%d", r.b.Options().DB), "PREFIX=" + r.b.Prefix,
			"LEDGER=" + ledger, "RESOURCE=" + ledger + ".resource",
		}
		if spawned++; spawned%2 == 0 {
			env = append(env, "SINGLETON=1")
		}
		return redistest.StartSubprocess(t, "fighter", env...)
	}
	procs := make([]*redistest.Process, 16)
	for i := range procs {
		procs[i] = spawn()
	}
	for _, p := range procs {
		p.WaitLine("ready")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var resumes sync.WaitGroup
	kills, stops, strikes := 0, 0, 0
	kill := func(i int) {
		procs[i].Kill()
		procs[i] = spawn()
		kills++
	}
	stop := func(i int, pause time.Duration) {
		p := procs[i].Process
		require.NoError(t, p.Signal(syscall.SIGSTOP))
		stops++
		resumes.Go(func() {
			time.Sleep(pause)
			_ = p.Signal(syscall.SIGCONT) // it may have been killed
		})
	}
	for begin := time.Now(); time.Since(begin) < fight; time.Sleep(rand.N(100 * time.Millisecond)) {
		last := lastNote(t, ledger)
		if held := time.Since(time.Unix(0, last.at)) < 20*time.Millisecond; held && rng.IntN(3) > 0 {
			continue // let it live for a while, to meet those who come late
		} else if held {
			if i := slices.IndexFunc(procs, func(p *redistest.Process) bool { return p.Process.Pid == last.pid }); i >= 0 {
				if strikes++; strikes%4 == 0 {
					kill(i)
				} else {
					stop(i, fightTTL+rand.N(fightTTL/2)) // the others go on meanwhile
				}
				continue
			}
		}
		if i := rng.IntN(len(procs)); rng.IntN(6) == 0 {
			kill(i)
		} else {
			stop(i, rand.N(fightTTL))
		}
	}
	resumes.Wait()
	time.Sleep(100 * time.Millisecond)
	for _, p := range procs {
		p.Kill()
	}
	judgeFight(t, ledger, kills, stops)
}

// lastNote returns the ledger's last line; its process has the lock, or just had it.
func lastNote(t *testing.T, ledger string) note {
	f, err := os.Open(ledger)
	require.NoError(t, err)
	defer f.Close()
	var tail [4096]byte
	end, err := f.Seek(0, 2)
	require.NoError(t, err)
	n, _ := f.ReadAt(tail[:], max(0, end-int64(len(tail))))
	lines := strings.Split(strings.TrimSpace(string(tail[:n])), "\n")
	last, _ := parseNote(lines[len(lines)-1])
	return last
}

func judgeFight(t *testing.T, ledger string, kills, stops int) {
	t.Helper()
	type hold struct {
		token, first, last int64
		ended              bool
	}
	holds, count := map[int64]*hold{}, map[string]int{}
	f, err := os.Open(ledger)
	require.NoError(t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		n, ok := parseNote(lines.Text())
		require.True(t, ok, "line %q", lines.Text())
		count[n.what]++
		h := holds[n.token]
		switch {
		case n.what == "live" && h == nil:
			holds[n.token] = &hold{token: n.token, first: n.at, last: n.at}
		case n.what == "live":
			h.last = max(h.last, n.at)
		case n.what == "end":
			h.ended = true
		}
	}
	order := make([]*hold, 0, len(holds))
	for _, h := range holds {
		order = append(order, h)
	}
	slices.SortFunc(order, func(a, b *hold) int { return int(a.first - b.first) })
	var longest time.Duration
	struck := 0 // holders that were killed, or stopped for so long that they lost the lock
	for i := 1; i < len(order); i++ {
		a, b := order[i-1], order[i]
		require.Less(t, a.last, b.first, "I11: tokens %d and %d were live together for %v", a.token, b.token, time.Duration(a.last-b.first))
		require.Less(t, a.token, b.token, "I10")
		longest = max(longest, time.Duration(b.first-a.last))
		if !a.ended {
			struck++
		}
	}
	t.Logf("%d holders, %d of them struck down; %d stops, %d kills; late writes: %d refused, %d accepted before the next holder's first; longest time without a live holder %v",
		len(order), struck, stops, kills, count["late-refused"], count["late-accepted"], longest)
	require.Zero(t, count["live-refused"], "a live holder's token was refused")
	require.Greater(t, len(order), 3)
	require.Positive(t, struck)
	if os.Getenv("REDRIVE_LONG") != "" { // a short fight may see none
		require.Positive(t, count["late-refused"])
	}
	require.Less(t, longest, fightTTL+time.Second)
}
