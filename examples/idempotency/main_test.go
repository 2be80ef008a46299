package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEachPaymentIsChargedOnce(t *testing.T) {
	var out strings.Builder
	require.NoError(t, run(&out))
	require.Equal(t, `order-1 is enqueued three times at once:
  success, intent pi_1
  success, intent pi_1
  success, intent pi_1
  the API saw 1 calls and made 1 charges
order-1 comes again, later:
  success, intent pi_1
  the API saw 1 calls and made 1 charges
order-1 comes with another amount:
  dead letter, key-reused after 0 retries
  the API saw 1 calls and made 1 charges
order-2 is throttled, and comes again after 60 ms:
  success, intent pi_2
  the API saw 2 calls and made 1 charges
order-3 is refused for good:
  dead letter, permanent after 0 retries
  the API saw 1 calls and made 0 charges
order-4 crashes after the charge; the key travels to the API:
  success, intent pi_3
  the API saw 2 calls and made 1 charges
`, out.String())
}
