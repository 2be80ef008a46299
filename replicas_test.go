package redrive_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/internal/faultnet"
	"github.com/redrive-go/redrive/internal/redistest"
)

// pair starts a master with a replica that keeps up.
func pair(t *testing.T) (master, replica *redistest.Server) {
	t.Helper()
	master = redistest.StartServer(t, "--repl-diskless-sync-delay", "0")
	replica = redistest.StartReplica(t, master)
	conn := master.Client().Conn()
	defer conn.Close()
	require.NoError(t, conn.Set(t.Context(), "first", "write", 0).Err())
	got, err := conn.Wait(t.Context(), 1, patience).Result()
	require.NoError(t, err)
	require.EqualValues(t, 1, got)
	return master, replica
}

// replicated starts a pair, and a client that waits for n replicas, not long.
func replicated(t *testing.T, n int) (master, replica *redistest.Server, client *redrive.Client) {
	t.Helper()
	master, replica = pair(t)
	client, err := redrive.NewClient(master.Client(), redrive.ClientOptions{
		Logger: quiet, Replicas: n, ReplicaTimeout: 100 * time.Millisecond,
	})
	require.NoError(t, err)
	return master, replica, client
}

func TestAnEnqueueThatWaitsForAReplicaIsOnItWhenItIsAnswered(t *testing.T) {
	t.Parallel()
	master, replica := pair(t)
	client, err := redrive.NewClient(master.Client(), redrive.ClientOptions{Logger: quiet, Replicas: 1, ReplicaTimeout: 2 * time.Second})
	require.NoError(t, err)
	ctx, there := t.Context(), replica.Client()
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	for n := range 50 {
		receipt, err := task.Enqueue(ctx, client, number{n}, nil)
		require.NoError(t, err)
		require.True(t, there.HExists(ctx, "redrive:{default}:jobs", receipt.ID).Val(), "job %d", n)
	}
	receipts, err := task.EnqueueMany(ctx, client, make([]number, 1200), nil)
	require.NoError(t, err)
	require.Len(t, receipts, 1200)
	require.EqualValues(t, 1250, there.HLen(ctx, "redrive:{default}:jobs").Val())
}

func TestTooFewReplicasIsATypedErrorAndTheJobStays(t *testing.T) {
	t.Parallel()
	master, replica, client := replicated(t, 1)
	ctx := t.Context()
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	replica.Pause()
	receipt, err := task.Enqueue(ctx, client, number{1}, &redrive.EnqueueOptions{ID: "mine"})
	var few *redrive.ReplicationError
	require.ErrorAs(t, err, &few)
	require.Equal(t, redrive.ReplicationError{IDs: []string{"mine"}, Want: 1}, *few)
	require.ErrorContains(t, err, "enqueued 1 jobs, and 0 of the 1 replicas wanted have them")
	require.NotErrorIs(t, err, redrive.ErrUnavailable)
	require.Equal(t, "mine", receipt.ID)
	require.True(t, master.Client().HExists(ctx, "redrive:{default}:jobs", "mine").Val())

	// A second try, as the error advises: nothing is added, and it waits anew.
	receipt, err = task.Enqueue(ctx, client, number{1}, &redrive.EnqueueOptions{ID: "mine"})
	require.ErrorAs(t, err, &few)
	require.True(t, receipt.Duplicate)
	many, err := task.EnqueueMany(ctx, client, make([]number, 501), nil)
	require.ErrorAs(t, err, &few)
	require.Len(t, many, 500, "the batch that was sent, and not the next")
	require.Len(t, few.IDs, 500)

	replica.Resume()
	require.Eventually(t, func() bool {
		receipt, err = task.Enqueue(ctx, client, number{1}, &redrive.EnqueueOptions{ID: "mine"})
		return err == nil
	}, patience, time.Millisecond)
	require.True(t, receipt.Duplicate)
	require.True(t, replica.Client().HExists(ctx, "redrive:{default}:jobs", "mine").Val())
	stats, err := client.Stats(ctx, "default")
	require.NoError(t, err)
	require.EqualValues(t, 501, stats.Enqueued)
}

// The answers of two callers whose jobs went in one call name each its own.
func TestConcurrentEnqueuesThatLackAReplicaEachNameTheirOwnJobs(t *testing.T) {
	t.Parallel()
	_, _, client := replicated(t, 2)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	errs := make(chan error, 20)
	for n := range cap(errs) {
		go func() {
			id := fmt.Sprintf("job-%d", n)
			receipt, err := task.Enqueue(context.Background(), client, number{n}, &redrive.EnqueueOptions{ID: id})
			few, ok := errors.AsType[*redrive.ReplicationError](err)
			if !ok || receipt.ID != id || len(few.IDs) != 1 || few.IDs[0] != id || few.Want != 2 || few.Got != 1 {
				errs <- fmt.Errorf("%s: %w", id, err)
				return
			}
			errs <- nil
		}()
	}
	for range cap(errs) {
		require.NoError(t, receive(t, errs, "answer"))
	}
}

// TestALostAnswerDoesNotMakeAWaitForReplicasSayYes: the enqueue runs, its answer is
// lost, and it is sent again over a connection that wrote nothing. With the replica
// deaf, no way through all this may end in a success.
func TestALostAnswerDoesNotMakeAWaitForReplicasSayYes(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"EVALSHA", "GET", "PEXPIRE", "WAIT"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			master, replica, _ := replicated(t, 1)
			proxy := faultnet.New(t, master.Addr, 1)
			o := master.Options()
			o.Dialer = proxy.Dialer()
			rdb := redis.NewClient(o)
			t.Cleanup(func() { _ = rdb.Close() })
			client, err := redrive.NewClient(rdb, redrive.ClientOptions{Logger: quiet, Replicas: 1, ReplicaTimeout: 100 * time.Millisecond})
			require.NoError(t, err)
			task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
			_, err = task.Enqueue(t.Context(), client, number{}, nil) // loads the script
			require.NoError(t, err)
			replica.Pause()
			proxy.DropReply(faultnet.Commands(lost), 1)
			receipt, err := task.Enqueue(t.Context(), client, number{1}, nil)
			var few *redrive.ReplicationError
			require.ErrorAs(t, err, &few)
			require.NotNil(t, receipt)
			require.EqualValues(t, 2, master.Client().HLen(t.Context(), "redrive:{default}:jobs").Val())
		})
	}
}

// A replica that lacked the job was promoted between the enqueue and the wait.
func TestAMasterThatNeverHeardOfAnEnqueueIsToldAgain(t *testing.T) {
	t.Parallel()
	master, replica := pair(t)
	proxy := faultnet.New(t, master.Addr, 1)
	o := master.Options()
	o.Dialer = proxy.Dialer()
	rdb := redis.NewClient(o)
	t.Cleanup(func() { _ = rdb.Close() })
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Logger: quiet, Replicas: 1, ReplicaTimeout: 2 * time.Second})
	require.NoError(t, err)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})

	waits := proxy.DelayRequest(faultnet.Commands("GET"), 1, 500*time.Millisecond)
	id := make(chan string, 1)
	go func() {
		receipt, err := task.Enqueue(context.Background(), client, number{1}, nil)
		if err != nil {
			id <- err.Error()
			return
		}
		id <- receipt.ID
	}()
	<-waits.Fired()
	require.NoError(t, master.Client().FlushAll(t.Context()).Err())
	got := receive(t, id, "answer")
	require.True(t, master.Client().HExists(t.Context(), "redrive:{default}:jobs", got).Val(), got)
	require.True(t, replica.Client().HExists(t.Context(), "redrive:{default}:jobs", got).Val())
}

// A cluster client sends a command that has no key to any node: WAIT must go to the
// one that holds the queue.
func TestInAClusterTheNodeOfTheQueueIsAskedForItsReplicas(t *testing.T) {
	t.Parallel()
	b := redistest.OnCluster(t)
	rdb := b.Client().(*redis.ClusterClient)
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix, Logger: quiet, Replicas: 1, ReplicaTimeout: time.Millisecond})
	require.NoError(t, err)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	for n := range 8 {
		queue := fmt.Sprintf("q%d", n)
		owner, err := rdb.MasterForKey(t.Context(), b.Prefix+":{"+queue+"}:jobs")
		require.NoError(t, err)
		before := waits(t, owner)
		receipt, err := task.Enqueue(t.Context(), client, number{n}, &redrive.EnqueueOptions{Queue: queue})
		var few *redrive.ReplicationError
		require.ErrorAs(t, err, &few)
		require.NoError(t, few.Err, "it was answered")
		require.NotEmpty(t, receipt.ID)
		require.Equal(t, before+1, waits(t, owner), queue)
	}
}

// waits counts the calls of WAIT that a node has performed.
func waits(t *testing.T, rdb *redis.Client) (n int) {
	t.Helper()
	info, err := rdb.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	if _, rest, ok := strings.Cut(info, "cmdstat_wait:calls="); ok {
		_, err = fmt.Sscanf(rest, "%d", &n)
		require.NoError(t, err)
	}
	return n
}

func TestReplicaOptionsAreChecked(t *testing.T) {
	t.Parallel()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ReadTimeout: time.Second})
	defer rdb.Close()
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	defer ring.Close()
	for field, c := range map[string]struct {
		rdb redis.UniversalClient
		o   redrive.ClientOptions
	}{
		"ClientOptions.Replicas is -1: ":           {rdb, redrive.ClientOptions{Replicas: -1}},
		"ClientOptions.ReplicaTimeout is -1ns: ":   {rdb, redrive.ClientOptions{ReplicaTimeout: -1}},
		"and rdb gives up reading after 1s: raise": {rdb, redrive.ClientOptions{Replicas: 1}},
		"and rdb is a *redis.Ring: use":            {ring, redrive.ClientOptions{Replicas: 1}},
	} {
		_, err := redrive.NewClient(c.rdb, c.o)
		require.ErrorContains(t, err, field)
	}
	_, err := redrive.NewClient(ring, redrive.ClientOptions{})
	require.NoError(t, err, "who does not wait may use any")
}

// pipelines keeps the names of the commands of every pipeline.
type pipelines struct{ sent [][]string }

func (*pipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*pipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (p *pipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		var names []string
		for _, cmd := range cmds {
			names = append(names, strings.ToLower(cmd.Name()))
		}
		p.sent = append(p.sent, names)
		return next(ctx, cmds)
	}
}

// Redis promises of WAIT only that it covers the writes of its own connection.
func TestAWaitForReplicasFollowsAWriteOnItsOwnConnection(t *testing.T) {
	t.Parallel()
	b := redistest.Embedded(t)
	rdb := b.Client().(*redis.Client)
	seen := new(pipelines)
	rdb.AddHook(seen)
	client, err := redrive.NewClient(rdb, redrive.ClientOptions{Prefix: b.Prefix, Logger: quiet, Replicas: 1})
	require.NoError(t, err)
	task := redrive.NewTask[number, redrive.None]("t", redrive.TaskOptions{})
	_, err = task.Enqueue(t.Context(), client, number{}, nil)
	require.ErrorAs(t, err, new(*redrive.ReplicationError), "the in-process redis has no replica")
	require.Contains(t, seen.sent, []string{"get", "pexpire", "wait"})
}
