package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// A server is a redis-server of the benchmark's own: nothing is persisted, and
// nobody else's work is in its figures.
type server struct {
	addr  string
	dir   string
	cmd   *exec.Cmd
	admin *redis.Client
}

func startServer() (_ *server, err error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("find redis-server in PATH: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "redrive-bench-")
	if err != nil {
		return nil, err
	}
	s := &server{addr: "127.0.0.1:" + strconv.Itoa(port), dir: dir}
	s.cmd = exec.Command(bin, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "",
		"--appendonly", "no", "--dir", dir, "--loglevel", "warning")
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", bin, err), os.RemoveAll(dir))
	}
	s.admin = s.client(2)
	deadline := time.Now().Add(10 * time.Second)
	for s.admin.Ping(context.Background()).Err() != nil {
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("redis-server at %s does not answer", s.addr)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return s, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (s *server) client(pool int) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.addr, PoolSize: pool, ReadTimeout: time.Minute})
}

func (s *server) stop() {
	_ = s.admin.Close()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	_ = os.RemoveAll(s.dir)
}

// reset empties the server and its counters.
func (s *server) reset() {
	ctx := context.Background()
	fatal(s.admin.FlushAll(ctx).Err())
	fatal(s.admin.ConfigResetStat(ctx).Err())
}

// info reads INFO as one map.
func (s *server) info(sections ...string) map[string]string {
	text, err := s.admin.Info(context.Background(), sections...).Result()
	fatal(err)
	out := make(map[string]string)
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[k] = v
		}
	}
	return out
}

func number(info map[string]string, key string) float64 {
	f, err := strconv.ParseFloat(info[key], 64)
	if err != nil {
		fatal(fmt.Errorf("INFO has no number %q: %q", key, info[key]))
	}
	return f
}
