package redrive_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/redrive-go/redrive"
	"github.com/redrive-go/redrive/embedded"
)

func ExampleLocker() {
	server, err := embedded.Start()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	locker, err := redrive.NewLocker(server.Client(), redrive.LockerOptions{Holder: "node-1"})
	if err != nil {
		panic(err)
	}
	ctx := context.Background()

	lock, err := locker.TryAcquire(ctx, "migrations")
	if err != nil {
		panic(err)
	}
	defer lock.Release(ctx)

	_, err = locker.TryAcquire(ctx, "migrations")
	fmt.Println(errors.Is(err, redrive.ErrLockHeld))
	if running, ok := errors.AsType[*redrive.AlreadyRunningError](err); ok {
		fmt.Println(running.Key, "is held by", running.Holder)
	}
	// Output:
	// true
	// migrations is held by node-1
}

// Do waits for the lock. What it runs gets a context that ends before the lock can
// be another's.
func ExampleLocker_Do() {
	server, err := embedded.Start()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	locker, err := redrive.NewLocker(server.Client(), redrive.LockerOptions{})
	if err != nil {
		panic(err)
	}
	err = locker.Do(context.Background(), "migrations", func(ctx context.Context) error {
		_, ok := redrive.FencingToken(ctx) // for the database to check
		fmt.Println("alone, with a token:", ok)
		return ctx.Err()
	})
	fmt.Println(err)
	// Output:
	// alone, with a token: true
	// <nil>
}

// One digest per user at a time; without OnConflict the second job is skipped.
func ExampleSingleton() {
	server, err := embedded.Start()
	if err != nil {
		panic(err)
	}
	defer server.Close()
	type digest struct{ User string }
	task := redrive.NewTask[digest, redrive.None]("mail.digest", redrive.TaskOptions{})
	singleton := redrive.Singleton(server.Client(), redrive.SingletonOptions{
		Key:        task.Key(func(d digest) string { return d.User }),
		OnConflict: redrive.Fail,
	})
	job := &redrive.Message{ID: "1", Task: "mail.digest", Payload: []byte(`{"User":"ann@example.com"}`)}

	var handler redrive.Handler
	handler = singleton(redrive.HandlerFunc(func(ctx context.Context, m *redrive.Message) ([]byte, error) {
		_, err := handler.Process(ctx, m) // the same key again, while it runs
		fmt.Println(errors.Is(err, redrive.ErrLockHeld))
		return nil, nil
	}))
	_, err = handler.Process(context.Background(), job)
	fmt.Println(err)
	// Output:
	// true
	// <nil>
}
