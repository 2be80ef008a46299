package redistest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// databases is how many databases the shared server has, one for each test.
	databases = 1024
	// upWithin bounds every wait for a server, a cluster or a sentinel.
	upWithin = 30 * time.Second
	// portTaken is in the log of a server that could not have its port.
	portTaken = "Failed listening on port"
)

// Server is a redis-server of a test. Its methods fail the test on any problem;
// they may be called concurrently with the clients' use, not with each other.
type Server struct {
	// Addr is where it listens. It stays the same across Stop and Start.
	Addr string
	// Dir is its working directory, which also survives: what it persists there
	// it loads again.
	Dir string

	t    testing.TB // nil for the shared ones, whose callers do not outlive a test
	port int
	args []string
	cmd  *exec.Cmd // nil while it does not run
}

// StartServer starts a redis-server for one test and stops it at its end. args
// are added to the command line: "--maxmemory", "10mb".
func StartServer(t testing.TB, args ...string) *Server {
	t.Helper()
	RequireServer(t)
	s, err := launch(t.TempDir(), args...)
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s.t = t
	t.Cleanup(s.kill)
	return s
}

// StartReplica starts a replica of master and waits until it is in step.
func StartReplica(t testing.TB, master *Server, args ...string) *Server {
	t.Helper()
	r := StartServer(t, append([]string{"--replicaof", "127.0.0.1 " + strconv.Itoa(master.port)}, args...)...)
	if err := r.waitInfo("replication", "master_link_status:up", nil); err != nil {
		t.Fatalf("redistest: replica: %v", err)
	}
	return r
}

// RequireServer skips the test when there is no redis-server to start, or fails
// it under REDRIVE_REQUIRE_REDIS=1.
func RequireServer(t testing.TB) {
	t.Helper()
	if _, err := binary(); err != nil {
		const how = "no redis-server: apt-get install redis-server (or brew install redis), or set " +
			"REDRIVE_REDIS_SERVER to the program, or REDRIVE_TEST_REDIS to the URL of a running one"
		if os.Getenv("REDRIVE_REQUIRE_REDIS") == "1" {
			t.Fatal("redistest: " + how)
		}
		t.Skip("redistest: " + how)
	}
}

func binary() (string, error) {
	if p := os.Getenv("REDRIVE_REDIS_SERVER"); p != "" {
		return exec.LookPath(p)
	}
	p, err := exec.LookPath("redis-server")
	if err != nil {
		p, err = exec.LookPath("valkey-server")
	}
	return p, err
}

var shared struct {
	once sync.Once
	s    *Server
	err  error
}

// sharedServer returns the redis-server of the process, which [Main] stops.
func sharedServer(t testing.TB) *Server {
	t.Helper()
	RequireServer(t)
	shared.once.Do(func() {
		var dir string
		if dir, shared.err = tempDir(); shared.err != nil {
			return
		}
		shared.s, shared.err = launch(dir, "--databases", strconv.Itoa(databases))
		if shared.err == nil {
			onExit(shared.s.kill)
		}
	})
	if shared.err != nil {
		t.Fatalf("redistest: %v", shared.err)
	}
	return shared.s
}

// tempDir returns a directory that [Main] removes: one that outlives the test
// which happens to be the first to need it.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "redrive-redis-")
	if err == nil {
		onExit(func() { _ = os.RemoveAll(dir) })
	}
	return dir, err
}

// launch starts a server on a free port and waits until it answers.
func launch(dir string, args ...string) (*Server, error) {
	var err error
	for range 5 { // another process may take the port before the server does
		var port int
		if port, err = freePort(); err != nil {
			return nil, err
		}
		s := &Server{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Dir: dir, port: port, args: args}
		if err = s.start(); err == nil {
			return s, nil
		}
		if !strings.Contains(err.Error(), portTaken) {
			break
		}
	}
	return nil, err
}

// freePort returns a loopback port that is free and so is the one 10,000 above
// it, which a cluster node takes for its bus.
func freePort() (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port+10_000 > 65_535 {
			port -= 20_000
		}
		if canListen(port) && canListen(port+10_000) {
			return port, nil
		}
	}
	return 0, errors.New("no free port")
}

func canListen(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

func (s *Server) start() error {
	bin, err := binary()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	old, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	args := []string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.Dir,
		"--save", "", "--appendonly", "no", "--daemonize", "no",
	}
	if len(s.args) > 0 && !strings.HasPrefix(s.args[0], "--") {
		args = nil // the first argument is a configuration file, which says it all
	}
	cmd := exec.Command(bin, append(args, s.args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = s.Dir
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd = cmd
	if err := s.waitUp(log.Name(), old); err != nil {
		s.kill()
		return fmt.Errorf("redis-server on %s: %w", s.Addr, err)
	}
	return nil
}

// waitUp waits until this very process answers: a foreign server on the port
// would answer, too. A process that has given up says so in its log; waiting
// for its end instead would take a goroutine for every server.
func (s *Server) waitUp(log string, old int64) error {
	want := "process_id:" + strconv.Itoa(s.cmd.Process.Pid) + "\r\n"
	var said string
	err := s.waitInfo("server", want, func(err error) error {
		all, _ := os.ReadFile(log)
		said = string(all[old:])
		if strings.Contains(said, portTaken) || strings.Contains(said, "FATAL CONFIG FILE ERROR") {
			return final{err}
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("%w; its log ends:\n%s", err, said[max(0, len(said)-2000):])
	}
	return err
}

// waitInfo waits until a section of INFO has the text. onErr, if not nil, looks
// at every error first.
func (s *Server) waitInfo(section, text string, onErr func(error) error) error {
	rdb := s.admin()
	defer rdb.Close()
	return waitFor(func(ctx context.Context) error {
		// The client logs every failure to connect; look whether it can first.
		probe, err := net.DialTimeout("tcp", s.Addr, time.Second)
		var info string
		if err == nil {
			_ = probe.Close()
			info, err = rdb.Info(ctx, section).Result()
		}
		if err == nil && !strings.Contains(info, text) {
			err = fmt.Errorf("INFO %s lacks %q", section, text)
		}
		if err != nil && onErr != nil {
			err = onErr(err)
		}
		return err
	})
}

// final marks an error that waiting does not mend.
type final struct{ error }

// waitFor calls f until it returns nil or a final error, for as long as upWithin.
func waitFor(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), upWithin)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		if f, ok := errors.AsType[final](err); ok {
			return f.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready within %v: %w", upWithin, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// admin returns a client that fails at once when the server is not there.
func (s *Server) admin() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: s.Addr, MaxRetries: -1, DialerRetries: 1, DialTimeout: time.Second, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: noNotifications(),
	})
}

// Options returns fresh options for a client of the server.
func (s *Server) Options() *redis.Options {
	return &redis.Options{Addr: s.Addr, MaintNotificationsConfig: noNotifications()}
}

// noNotifications turns off what only hosted Redis sends. Left on, a failover
// or cluster client leaves goroutines behind after Close (go-redis v9.23).
func noNotifications() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

// Client returns a new client, which is closed when the test ends.
func (s *Server) Client() *redis.Client {
	c := redis.NewClient(s.Options())
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Start starts the server again, on the same port and directory.
func (s *Server) Start() {
	s.t.Helper()
	if s.cmd != nil {
		s.t.Fatalf("redistest: the server on %s runs already", s.Addr)
	}
	if err := s.start(); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
}

// Stop kills the server with SIGKILL: it writes nothing more.
func (s *Server) Stop() {
	s.t.Helper()
	s.kill()
}

// kill is Stop for servers without a test. It does nothing for one that does
// not run. SIGKILL ends a paused process, too.
func (s *Server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Shutdown ends the server with SIGTERM and waits until it is gone.
func (s *Server) Shutdown() {
	s.t.Helper()
	s.signal(sigTerm)
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("redistest: redis-server on %s after SIGTERM: %v", s.Addr, err)
	}
	s.cmd = nil
}

// Pause stops the process with SIGSTOP: connections stay open and nothing
// answers.
func (s *Server) Pause() { s.t.Helper(); s.signal(sigStop) }

// Resume ends a Pause.
func (s *Server) Resume() { s.t.Helper(); s.signal(sigCont) }

func (s *Server) signal(sig os.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		s.t.Fatalf("redistest: the server on %s does not run", s.Addr)
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("redistest: %v to the server on %s: %v", sig, s.Addr, err)
	}
}

// CommandStats returns how often each command was called since the server
// started, by lower-case name, from INFO commandstats. Commands that a script
// called count, too.
func (s *Server) CommandStats() map[string]int64 {
	s.t.Helper()
	rdb := s.admin()
	defer rdb.Close()
	ctx, cancel := context.WithTimeout(context.Background(), upWithin)
	defer cancel()
	info, err := rdb.Info(ctx, "commandstats").Result()
	if err != nil {
		s.t.Fatalf("redistest: INFO commandstats: %v", err)
	}
	stats := map[string]int64{}
	for line := range strings.Lines(info) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok {
			continue
		}
		calls, _, _ := strings.Cut(rest, ",")
		n, err := strconv.ParseInt(calls, 10, 64)
		if err != nil {
			s.t.Fatalf("redistest: INFO commandstats: %q", line)
		}
		stats[name] = n
	}
	return stats
}

// CommandCount returns the calls of the named commands together, or of all.
// What the harness itself asks (INFO, HELLO, CLIENT) is among all.
func (s *Server) CommandCount(names ...string) int64 {
	s.t.Helper()
	var n int64
	stats := s.CommandStats()
	if len(names) == 0 {
		for _, calls := range stats {
			n += calls
		}
	}
	for _, name := range names {
		n += stats[strings.ToLower(name)]
	}
	return n
}
