package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A server is a redis-server of the run's own, which persists every write before it
// answers: what it has acknowledged survives its kill.
type server struct {
	addr, dir string
	cmd       *exec.Cmd
	admin     *redis.Client
	down      atomic.Bool // it is meant to be down
}

// upWithin bounds the wait for a server that starts.
const upWithin = 30 * time.Second

func startServer(dir string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{addr: l.Addr().String(), dir: dir}
	_ = l.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s.admin = redis.NewClient(&redis.Options{Addr: s.addr, MaxRetries: -1, PoolSize: 4, ReadTimeout: time.Minute})
	if _, err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// start starts the server and returns when it first answered a command.
func (s *server) start() (up int64, err error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return 0, fmt.Errorf("find redis-server in PATH: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "redis.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }() // the server has its own
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return 0, err
	}
	s.cmd = exec.Command(bin, "--port", port, "--bind", "127.0.0.1", "--dir", s.dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	dieWithParent(s.cmd)
	if err := s.cmd.Start(); err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(upWithin); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if s.answers(time.Second) == nil {
			s.down.Store(false)
			return now(), nil
		}
	}
	s.kill()
	return 0, fmt.Errorf("redis-server does not answer within %v: see %s", upWithin, log.Name())
}

// kill ends the server with SIGKILL: it writes nothing more.
func (s *server) kill() {
	s.down.Store(true)
	if s.cmd != nil && s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}

func (s *server) stop() {
	s.kill()
	_ = s.admin.Close()
}

// answers sends one PING on a connection of its own.
func (s *server) answers(within time.Duration) error {
	c, err := net.DialTimeout("tcp", s.addr, within)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(within))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "+PONG\r\n" {
		err = errors.New(strings.TrimSpace(line)) // it loads what it has persisted
	}
	return err
}

// info returns one field of INFO.
func (s *server) info(ctx context.Context, section, field string) (string, error) {
	text, err := s.admin.Info(ctx, section).Result()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v), nil
		}
	}
	return "", fmt.Errorf("INFO %s has no %s", section, field)
}

// number is info for a field that is one.
func (s *server) number(ctx context.Context, section, field string) (int, error) {
	text, err := s.info(ctx, section, field)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// watchStalls notes when Redis did not answer for a while, and was not meant to be
// down: a slow disk, or a busy machine.
func (s *server) watchStalls(ctx context.Context, ledger *journal) {
	for ctx.Err() == nil {
		if begun := now(); !s.down.Load() {
			err := s.answers(time.Minute)
			if err == nil && ago(begun) > gap && !s.down.Load() {
				ledger.write(lineFault, faultRedisStall+" *", begun, now(), 1)
			}
		}
		time.Sleep(gap / 10)
	}
}
