package memnet

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWriteNeverWaitsForAReader(t *testing.T) {
	a, b := Pipe()
	defer a.Close()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MB
	n, err := a.Write(data)
	require.NoError(t, err)
	require.Len(t, data, n)
	require.NoError(t, a.Close())
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
}

func TestBytesArriveInOrderThroughConcurrentUse(t *testing.T) {
	a, b := Pipe()
	defer b.Close()
	sent := sha256.New()
	go func() {
		defer a.Close()
		rnd := rand.New(rand.NewPCG(1, 2))
		for range 2000 {
			p := make([]byte, rnd.IntN(5000))
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			sent.Write(p)
			if _, err := a.Write(p); err != nil {
				return
			}
		}
	}()
	got := sha256.New()
	_, err := io.CopyBuffer(got, struct{ io.Reader }{b}, make([]byte, 777))
	require.NoError(t, err)
	require.Equal(t, sent.Sum(nil), got.Sum(nil))
}

// A connection that is always a little behind must not grow for ever.
func TestUnreadBytesMoveDownInsteadOfGrowing(t *testing.T) {
	a, b := Pipe()
	defer a.Close()
	p := make([]byte, 1000)
	_, _ = a.Write(p)
	for range 10_000 {
		_, _ = a.Write(p)
		_, err := io.ReadFull(b, p)
		require.NoError(t, err)
	}
	require.Less(t, cap(a.(*conn).out.buf), 16_000)
}

func TestLargeBufferIsGivenBackWhenEmpty(t *testing.T) {
	a, b := Pipe()
	defer a.Close()
	_, _ = a.Write(make([]byte, 1<<20))
	_, err := io.ReadFull(b, make([]byte, 1<<20))
	require.NoError(t, err)
	require.LessOrEqual(t, cap(a.(*conn).out.buf), keepBuffer)
}

func TestReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		defer a.Close()
		defer b.Close()
		for range 3 { // a deadline can be set again after it passed
			start := time.Now()
			require.NoError(t, b.SetReadDeadline(start.Add(time.Second)))
			_, err := b.Read(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			var ne net.Error
			require.ErrorAs(t, err, &ne)
			require.True(t, ne.Timeout())
			require.Equal(t, time.Second, time.Since(start))
		}
		// Passed once, it also beats bytes that are there.
		_, _ = a.Write([]byte("x"))
		_, err := b.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		// Cleared, it is gone.
		require.NoError(t, b.SetReadDeadline(time.Time{}))
		n, err := b.Read(make([]byte, 1))
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

func TestReadDeadlineMovesUnderAWaitingRead(t *testing.T) {
	for name, first := range map[string]time.Duration{
		"from none": 0, "earlier": time.Hour, "later": 10 * time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := Pipe()
				defer a.Close()
				defer b.Close()
				start := time.Now()
				if first > 0 {
					_ = b.SetReadDeadline(start.Add(first))
				}
				done := make(chan error, 1)
				go func() {
					_, err := b.Read(make([]byte, 1))
					done <- err
				}()
				synctest.Wait() // the read waits now
				_ = b.SetReadDeadline(start.Add(time.Minute))
				require.ErrorIs(t, <-done, os.ErrDeadlineExceeded)
				require.Equal(t, time.Minute, time.Since(start))
			})
		})
	}
}

func TestCloseWakesBothEnds(t *testing.T) {
	for name, end := range map[string]int{"own": 0, "other": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := Pipe()
				ends := []net.Conn{b, a}
				done := make(chan error, 1)
				go func() {
					_, err := b.Read(make([]byte, 1))
					done <- err
				}()
				synctest.Wait()
				require.NoError(t, ends[end].Close())
				want := []error{net.ErrClosed, io.EOF}[end]
				require.ErrorIs(t, <-done, want)
				_, err := b.Write([]byte("x"))
				require.Error(t, err)
				_, err = a.Write([]byte("x"))
				require.Error(t, err)
				require.NoError(t, a.Close())
				require.NoError(t, b.Close())
			})
		})
	}
}

func TestWriteDeadlineFailsLaterWrites(t *testing.T) {
	a, b := Pipe()
	defer b.Close()
	require.NoError(t, a.SetDeadline(time.Now().Add(-time.Second)))
	_, err := a.Write([]byte("x"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, a.SetDeadline(time.Time{}))
	_, err = a.Write([]byte("x"))
	require.NoError(t, err)
}
