package redistest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
)

const masterName = "redrive"

// Sentinel is a master, a replica, and a sentinel that watches them.
type Sentinel struct {
	// Master is the server that was the master at first.
	Master *Server
	// Replica is the one that was the replica at first.
	Replica *Server

	t    testing.TB
	addr string
}

// StartSentinel starts the three for one test. A master that does not answer
// for half a second is replaced.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	// The default delay before a replica syncs adds five seconds.
	master := StartServer(t, "--repl-diskless-sync-delay", "0")
	// The replica is up before the sentinel starts, which looks for replicas at
	// once and then only every ten seconds.
	replica := StartReplica(t, master, "--repl-diskless-sync-delay", "0")

	var s *Server
	var err error
	for range 5 {
		if s, err = launchSentinel(t.TempDir(), master.port); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("redistest: sentinel: %v", err)
	}
	t.Cleanup(s.kill)
	out := &Sentinel{Master: master, Replica: replica, t: t, addr: s.Addr}
	out.wait("the replica to be known and in step", func(ctx context.Context, c *redis.SentinelClient) error {
		replicas, err := c.Replicas(ctx, masterName).Result()
		if err != nil {
			return err
		}
		if len(replicas) != 1 || replicas[0]["flags"] != "slave" || replicas[0]["master-link-status"] != "ok" {
			return fmt.Errorf("replicas: %v", replicas)
		}
		return nil
	})
	return out
}

func launchSentinel(dir string, masterPort int) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	// A sentinel rewrites its configuration, so it must have a file.
	file := filepath.Join(dir, "sentinel.conf")
	conf := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %d 1\n"+
		"sentinel down-after-milliseconds %[3]s 500\nsentinel failover-timeout %[3]s 3000\n",
		port, dir, masterName, masterPort)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	s := &Server{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Dir: dir, port: port,
		args: []string{file, "--sentinel"},
	}
	return s, s.start()
}

// Options returns fresh options for a client that follows the master.
func (s *Sentinel) Options() *redis.FailoverOptions {
	return &redis.FailoverOptions{MasterName: masterName, SentinelAddrs: []string{s.addr}}
}

// MasterAddr returns where the sentinel says that the master is.
func (s *Sentinel) MasterAddr() string {
	s.t.Helper()
	var addr string
	s.wait("the master's address", func(ctx context.Context, c *redis.SentinelClient) (err error) {
		addr, err = masterAddr(ctx, c)
		return err
	})
	return addr
}

func masterAddr(ctx context.Context, c *redis.SentinelClient) (string, error) {
	hp, err := c.GetMasterAddrByName(ctx, masterName).Result()
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(hp[0], hp[1]), nil
}

// Failover has the sentinel promote the replica and waits until that is done.
// To see a failover after a crash, Stop the Master and call AwaitFailover.
func (s *Sentinel) Failover() {
	s.t.Helper()
	was := s.MasterAddr()
	s.wait("the sentinel to accept the failover", func(ctx context.Context, c *redis.SentinelClient) error {
		return c.Failover(ctx, masterName).Err()
	})
	s.AwaitFailover(was)
}

// AwaitFailover waits until the master is another than was and takes writes.
func (s *Sentinel) AwaitFailover(was string) {
	s.t.Helper()
	s.wait("another master", func(ctx context.Context, c *redis.SentinelClient) error {
		now, err := masterAddr(ctx, c)
		if err != nil {
			return err
		}
		if now == was {
			return fmt.Errorf("the master is still %s", was)
		}
		rdb := (&Server{Addr: now}).admin()
		defer rdb.Close()
		role, err := rdb.Do(ctx, "ROLE").Slice()
		if err == nil && role[0] != "master" {
			err = fmt.Errorf("%s is a %v", now, role[0])
		}
		return err
	})
}

func (s *Sentinel) wait(what string, f func(context.Context, *redis.SentinelClient) error) {
	s.t.Helper()
	c := redis.NewSentinelClient(&redis.Options{
		Addr: s.addr, MaxRetries: -1, MaintNotificationsConfig: noNotifications(),
	})
	defer func() { _ = c.Close() }()
	if err := waitFor(func(ctx context.Context) error { return f(ctx, c) }); err != nil {
		s.t.Fatalf("redistest: sentinel: waiting for %s: %v", what, err)
	}
}
