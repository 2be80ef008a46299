package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	errRateLimit      = errors.New("rate limit")
	errInvalidRequest = errors.New("invalid request: the amount must be positive")
)

// paymentAPI stands for a payment provider. Like those it honours an idempotency
// key: a key that was charged is not charged again.
type paymentAPI struct {
	opened time.Time

	mu      sync.Mutex
	calls   map[string]int
	intents map[string]string
}

func newPaymentAPI() *paymentAPI {
	return &paymentAPI{opened: time.Now(), calls: make(map[string]int), intents: make(map[string]string)}
}

func (a *paymentAPI) createIntent(_ context.Context, key string, args PaymentArgs) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[key]++
	switch {
	case args.Amount <= 0:
		return "", errInvalidRequest
	case args.Customer == "throttled" && a.calls[key] == 1:
		return "", errRateLimit
	}
	if a.intents[key] == "" {
		a.intents[key] = fmt.Sprintf("pi_%d", len(a.intents)+1)
	}
	return a.intents[key], nil
}

// seen counts the calls with a key, and the charges made for it.
func (a *paymentAPI) seen(key string) (calls, charges int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.intents[key] != "" {
		charges = 1
	}
	return a.calls[key], charges
}
