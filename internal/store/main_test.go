package store_test

import (
	"testing"

	"github.com/redrive-go/redrive/internal/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }
