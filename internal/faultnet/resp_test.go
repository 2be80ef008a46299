package faultnet

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redrive-go/redrive/internal/memnet"
)

var frames = []string{
	"+OK\r\n", "-ERR no\r\n", ":1\r\n", "$-1\r\n", "$0\r\n\r\n", "$4\r\n\r\n$1\r\n", "*-1\r\n", "*0\r\n",
	"*2\r\n*1\r\n$1\r\na\r\n:7\r\n", "_\r\n", "#t\r\n", ",3.14\r\n", "(123\r\n", "!5\r\nERR x\r\n", "=5\r\ntxt:a\r\n",
	"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n", "~1\r\n:1\r\n", ">2\r\n$7\r\nmessage\r\n+x\r\n",
	"|1\r\n+ttl\r\n:9\r\n*1\r\n+value\r\n",
}

// Frames end where they end, whatever the pieces that the network delivers.
func TestReadFrameFindsTheBorders(t *testing.T) {
	stream := strings.Join(frames, "")
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(stream), "one byte": iotest.OneByteReader(strings.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			br := bufio.NewReaderSize(r, 16)
			for _, want := range frames {
				got, err := readFrame(br, nil)
				require.NoError(t, err)
				require.Equal(t, want, string(got))
			}
			_, err := readFrame(br, nil)
			require.ErrorIs(t, err, io.EOF)
		})
	}
}

func TestReadFrameTellsACutFromAnEnd(t *testing.T) {
	for _, f := range frames {
		for cut := 1; cut < len(f); cut++ {
			_, err := readFrame(bufio.NewReader(strings.NewReader(f[:cut])), nil)
			require.Error(t, err, "%q", f[:cut])
			require.NotErrorIs(t, err, errProtocol, "%q", f[:cut])
		}
	}
}

func TestReadFrameRefusesWhatIsNotRESP(t *testing.T) {
	for _, bad := range []string{"HTTP/1.1 200\r\n", "$x\r\n", "$-2\r\n", "*99999999999\r\n", "+no carriage return\n"} {
		_, err := readFrame(bufio.NewReader(strings.NewReader(bad)), nil)
		require.ErrorIs(t, err, errProtocol, "%q", bad)
	}
}

func TestReadCommand(t *testing.T) {
	in := "*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$0\r\n\r\n" + "PING now\r\n"
	r := bufio.NewReader(strings.NewReader(in))
	cmd, raw, err := readCommand(r)
	require.NoError(t, err)
	require.Equal(t, []string{"SET", "\r\n", ""}, cmd)
	require.Equal(t, "*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$0\r\n\r\n", string(raw))
	cmd, raw, err = readCommand(r)
	require.NoError(t, err)
	require.Equal(t, []string{"PING", "now"}, cmd)
	require.Equal(t, "PING now\r\n", string(raw))
}

func FuzzReadFrame(f *testing.F) {
	for _, s := range frames {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := readFrame(bufio.NewReader(strings.NewReader(s)), nil)
		if err == nil && !strings.HasPrefix(s, string(got)) {
			t.Fatalf("%q is not the beginning of %q", got, s)
		}
	})
}

// A push that overtakes a reply must not be taken for it: the rule is for the
// reply, and the push goes through.
func TestPushesAreNotTakenForReplies(t *testing.T) {
	const message = "3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n"
	for name, c := range map[string]struct{ before, push string }{
		"RESP3": {"", ">" + message},
		"RESP2": {"*2\r\n$9\r\nsubscribe\r\n$1\r\na\r\n", "*" + message},
	} {
		t.Run(name, func(t *testing.T) {
			server, far := memnet.Pipe()
			defer server.Close()
			p := NewDialer(t, func(context.Context, string, string) (net.Conn, error) { return far, nil }, 1)
			p.RefuseReply(Commands("PING"), 1, "ERR replaced")
			client, err := p.Dialer()(t.Context(), "", "")
			require.NoError(t, err)
			defer client.Close()
			require.NoError(t, client.SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err = io.WriteString(client, c.before+"*1\r\n$4\r\nPING\r\n")
			require.NoError(t, err)
			_, err = io.ReadFull(server, make([]byte, len(c.before)+14)) // both have passed the proxy
			require.NoError(t, err)
			_, err = io.WriteString(server, c.push+"+PONG\r\n"+c.push)
			require.NoError(t, err)
			want := c.push + "-ERR replaced\r\n" + c.push
			got := make([]byte, len(want))
			_, err = io.ReadFull(client, got)
			require.NoError(t, err)
			require.Equal(t, want, string(got))
		})
	}
}
