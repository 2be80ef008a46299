// Package redistest runs tests against every backend that redrive supports: the
// in-process Redis, a real redis-server, and a real cluster. It starts what is
// needed, keeps tests apart, and checks invariant I5 after each of them.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { redistest.Main(m) }
//
// The redis-server is found in PATH, or where REDRIVE_REDIS_SERVER points.
// REDRIVE_TEST_REDIS=redis://host:port/db names a running server to use in
// place of the private one. Without either, tests that need one are skipped;
// REDRIVE_REQUIRE_REDIS=1 makes them fail instead.
package redistest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/memredis"
	"github.com/redrive-go/redrive/internal/store"
)

// Backend is one Redis for one test. What a test writes is under Prefix, and
// nothing else is.
type Backend struct {
	// Name is "embedded", "redis" or "cluster".
	Name string
	// Addr is where the server listens; for a cluster, one of its nodes. The
	// embedded one has an address and no port: use Client or Options.
	Addr string
	// Prefix is unique to the test, so that tests can share a server. Every
	// test gives it to ClientOptions, WorkerOptions and the like.
	Prefix string

	t       testing.TB
	options *redis.Options // nil for a cluster
	cluster *Cluster       // nil for the others
	mem     *memredis.Server
}

// Each runs f as the subtests "embedded" and "redis".
func Each(t *testing.T, f func(t *testing.T, b *Backend)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { f(t, Embedded(t)) })
	t.Run("redis", func(t *testing.T) { f(t, Redis(t)) })
}

// EachWithCluster runs f as the subtests of [Each] and as "cluster".
func EachWithCluster(t *testing.T, f func(t *testing.T, b *Backend)) {
	t.Helper()
	Each(t, f)
	t.Run("cluster", func(t *testing.T) { f(t, OnCluster(t)) })
}

// Embedded returns a Backend on an in-process Redis of its own. Called in a
// synctest bubble, the server lives in the bubble.
func Embedded(t testing.TB) *Backend {
	t.Helper()
	mem, err := memredis.Start()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	t.Cleanup(func() {
		if err := mem.Close(); err != nil {
			t.Errorf("redistest: close the in-process redis: %v", err)
		}
	})
	return newBackend(t, &Backend{Name: "embedded", Addr: memredis.Addr, options: mem.Options(), mem: mem})
}

// Redis returns a Backend on the process's redis-server, in a database of its
// own, or on the server that REDRIVE_TEST_REDIS names, in the database it names.
func Redis(t testing.TB) *Backend {
	t.Helper()
	if url := os.Getenv("REDRIVE_TEST_REDIS"); url != "" {
		opts, err := redis.ParseURL(url)
		if err != nil {
			t.Fatalf("redistest: REDRIVE_TEST_REDIS: %v", err)
		}
		opts.MaintNotificationsConfig = noNotifications()
		return newBackend(t, &Backend{Name: "redis", Addr: opts.Addr, options: opts})
	}
	s := sharedServer(t)
	// The databases come round again after so many tests that the last user of
	// this one has long ended.
	db := int(dbs.Add(1)-1) % databases
	opts := s.Options()
	opts.DB = db
	b := newBackend(t, &Backend{Name: "redis", Addr: s.Addr, options: opts})
	b.with(func(ctx context.Context, rdb redis.UniversalClient) error { return rdb.FlushDB(ctx).Err() })
	return b
}

// OnCluster returns a Backend on the process's cluster.
func OnCluster(t testing.TB) *Backend {
	t.Helper()
	c := StartCluster(t)
	return newBackend(t, &Backend{Name: "cluster", Addr: c.Addrs()[0], cluster: c})
}

var (
	tests     atomic.Int64
	dbs       atomic.Int64
	processID = sync.OnceValue(func() string { return strings.ToLower(rand.Text()[:5]) })
)

// newBackend gives b its prefix and registers the checks. It is called before
// the test registers anything, so the checks run after all of the test's own
// cleanups, when workers have stopped.
func newBackend(t testing.TB, b *Backend) *Backend {
	b.t = t
	// The random part keeps processes that share REDRIVE_TEST_REDIS apart.
	b.Prefix = fmt.Sprintf("t%d-%s", tests.Add(1), processID())
	t.Cleanup(func() {
		b.Audit()
		b.Flush()
	})
	return b
}

// Real reports whether the backend is a redis-server, which knows commands and
// limits that the in-process one does not.
func (b *Backend) Real() bool { return b.mem == nil }

// Cluster returns the cluster behind the backend, or nil.
func (b *Backend) Cluster() *Cluster { return b.cluster }

// Client returns a new client, which is closed when the test ends.
func (b *Backend) Client() redis.UniversalClient {
	c := b.open()
	b.t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	return c
}

// Skew makes the clock of an embedded backend jump to that far from ours. Only what
// TIME says jumps, TTLs do not. Others cannot do it.
func (b *Backend) Skew(d time.Duration) { b.mem.Skew(d) }

// Options returns a copy of the options that Client uses, for tests that need
// other ones. For a cluster it is nil.
func (b *Backend) Options() *redis.Options {
	if b.options == nil {
		return nil
	}
	o := *b.options
	return &o
}

// Audit fails the test for every violation of I5 in the queues under Prefix. It
// runs by itself at the end of the test; call it where a test wants it earlier.
func (b *Backend) Audit() {
	b.t.Helper()
	b.with(func(ctx context.Context, rdb redis.UniversalClient) error {
		problems, err := store.Audit(ctx, rdb, b.Prefix)
		for _, p := range problems {
			b.t.Errorf("I5: %s", p)
		}
		return err
	})
}

// Keys returns every key under Prefix.
func (b *Backend) Keys() []string {
	b.t.Helper()
	var keys []string
	b.with(func(ctx context.Context, rdb redis.UniversalClient) error {
		var mu sync.Mutex
		return eachMaster(ctx, rdb, func(ctx context.Context, rdb redis.Cmdable) error {
			it := rdb.Scan(ctx, 0, b.Prefix+":*", 1000).Iterator()
			for it.Next(ctx) {
				mu.Lock()
				keys = append(keys, it.Val())
				mu.Unlock()
			}
			return it.Err()
		})
	})
	return keys
}

// Flush deletes every key under Prefix.
func (b *Backend) Flush() {
	b.t.Helper()
	keys := b.Keys()
	b.with(func(ctx context.Context, rdb redis.UniversalClient) error {
		_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, k := range keys {
				p.Unlink(ctx, k) // one by one: a cluster refuses keys of several slots
			}
			return nil
		})
		return err
	})
}

func (b *Backend) open() redis.UniversalClient {
	if b.cluster != nil {
		return redis.NewClusterClient(b.cluster.Options())
	}
	return redis.NewClient(b.Options())
}

// with calls f with a client of its own: the test's clients are closed by the
// time the checks run. t.Context is done by then, too.
func (b *Backend) with(f func(context.Context, redis.UniversalClient) error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := b.open()
	defer c.Close()
	if err := f(ctx, c); err != nil {
		b.t.Errorf("redistest: %s: %v", b.Name, err)
	}
}

func eachMaster(ctx context.Context, rdb redis.UniversalClient, f func(context.Context, redis.Cmdable) error) error {
	if c, ok := rdb.(*redis.ClusterClient); ok {
		return c.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return f(ctx, c) })
	}
	return f(ctx, rdb)
}
