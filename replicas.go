package redrive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/redrive-go/redrive/internal/store"
)

// ReplicationError says that jobs were enqueued and that too few replicas are known
// to have them, see [ClientOptions.Replicas]. The jobs are on the master: they run,
// and they are lost only if a replica that lacks them is promoted. Do not enqueue
// them again under other ids. Either accept the risk; or enqueue again with the same
// [EnqueueOptions.ID], which adds nothing while the job is there and waits anew; or
// wait for the job's end with its receipt.
type ReplicationError struct {
	// IDs are the ids of the jobs.
	IDs []string
	// Want is ClientOptions.Replicas; Got is how many replicas acknowledged in time.
	Want, Got int
	// Err is why it is not known how many did, and Got is 0; nil where it is known.
	Err error
}

func (e *ReplicationError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("enqueued %d jobs, and it is unknown whether %d replicas have them: %v", len(e.IDs), e.Want, e.Err)
	}
	return fmt.Sprintf("enqueued %d jobs, and %d of the %d replicas wanted have them", len(e.IDs), e.Got, e.Want)
}

// Unwrap returns e.Err.
func (e *ReplicationError) Unwrap() error { return e.Err }

// validateReplicas also looks at the client: a WAIT must go over the connection
// that wrote, which only the kinds that redrive knows can promise.
func (o *ClientOptions) validateReplicas(rdb redis.UniversalClient) error {
	var errs []error
	if o.Replicas < 0 {
		errs = append(errs, fmt.Errorf("ClientOptions.Replicas is %d: use a positive number, or 0 not to wait", o.Replicas))
	}
	if o.ReplicaTimeout < 0 {
		errs = append(errs, fmt.Errorf("ClientOptions.ReplicaTimeout is %v: use a positive duration", o.ReplicaTimeout))
	}
	if o.Replicas <= 0 || rdb == nil {
		return errors.Join(errs...)
	}
	var read time.Duration
	switch c := rdb.(type) {
	case *redis.Client:
		read = c.Options().ReadTimeout
	case *redis.ClusterClient:
		read = c.Options().ReadTimeout
	default:
		errs = append(errs, fmt.Errorf("ClientOptions.Replicas is %d, and rdb is a %T: use a *redis.Client or a *redis.ClusterClient", o.Replicas, rdb))
	}
	if read > 0 && o.ReplicaTimeout >= read {
		errs = append(errs, fmt.Errorf("ClientOptions.ReplicaTimeout is %v, and rdb gives up reading after %v: raise its ReadTimeout", o.ReplicaTimeout, read))
	}
	return errors.Join(errs...)
}

// replicate waits for the replicas that a call's jobs must reach. It returns a
// [*ReplicationError] without ids, or [store.ErrForgotten]: the call must be sent
// again.
func (l *lane) replicate(batch []*submission) error {
	retry := newReconnect()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), l.replicaTimeout+sendTimeout)
		got, err := l.q.Replicated(ctx, l.id, l.call, l.replicas, l.replicaTimeout)
		cancel()
		switch {
		case err == nil && got >= l.replicas:
			return nil
		case err == nil:
			return &ReplicationError{Want: l.replicas, Got: got}
		case !waited(batch) || !errors.Is(err, store.ErrForgotten) && !store.Transient(err):
			return &ReplicationError{Want: l.replicas, Err: err}
		}
		time.Sleep(retry.NextBackOff())
		if errors.Is(err, store.ErrForgotten) {
			return err
		}
	}
}
