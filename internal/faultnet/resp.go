package faultnet

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxFrame bounds what a frame may announce: Redis's own limit for a string.
const maxFrame = 512 << 20

var errProtocol = errors.New("faultnet: not RESP")

// readCommand reads one request: its words, and the bytes that carried it.
func readCommand(r *bufio.Reader) (cmd []string, raw []byte, err error) {
	line, err := readLine(r)
	if err != nil {
		return nil, nil, err
	}
	if line[0] != '*' { // an inline command, as typed by hand
		return strings.Fields(string(line)), line, nil
	}
	n, err := length(line)
	if err != nil {
		return nil, nil, err
	}
	raw = line
	for range n {
		head := len(raw)
		if raw, err = readFrame(r, raw); err != nil {
			return nil, nil, err
		}
		word := raw[head:]
		if word[0] != '$' {
			return nil, nil, fmt.Errorf("%w: a command holds %q", errProtocol, word[0])
		}
		_, word, _ = bytes.Cut(word, []byte("\r\n"))
		cmd = append(cmd, string(bytes.TrimSuffix(word, []byte("\r\n"))))
	}
	return cmd, raw, nil
}

// readFrame reads one complete RESP2 or RESP3 value, however deep, and appends
// its bytes to raw.
func readFrame(r *bufio.Reader, raw []byte) ([]byte, error) {
	for pending := 1; pending > 0; pending-- {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		raw = append(raw, line...)
		switch line[0] {
		case '+', '-', ':', '_', ',', '#', '(':
		case '$', '!', '=':
			n, err := length(line)
			if err != nil {
				return nil, err
			}
			// -1 is nil and has no body. In pieces, so that memory follows what
			// arrives and not what is announced.
			for left := n + 2; n >= 0 && left > 0; {
				head, piece := len(raw), min(left, 1<<20)
				raw = append(raw, make([]byte, piece)...)
				if _, err := io.ReadFull(r, raw[head:]); err != nil {
					return nil, unexpected(err)
				}
				left -= piece
			}
		case '*', '~', '>', '%', '|':
			n, err := length(line)
			if err != nil {
				return nil, err
			}
			n = max(n, 0)
			switch line[0] {
			case '%':
				n *= 2
			case '|':
				n = 2*n + 1 // attributes stand before the value that they describe
			}
			pending += n
		default:
			return nil, fmt.Errorf("%w: a value begins with %q", errProtocol, line[0])
		}
	}
	return raw, nil
}

// readLine reads to the next CRLF and returns the line with it. The slice is
// the caller's.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		if len(line) > 0 {
			err = unexpected(err)
		}
		return nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, fmt.Errorf("%w: line %q", errProtocol, line)
	}
	return line, nil
}

func length(line []byte) (int, error) {
	n, err := strconv.Atoi(string(line[1 : len(line)-2]))
	if err != nil || n < -1 || n > maxFrame {
		return 0, fmt.Errorf("%w: length %q", errProtocol, line)
	}
	return n, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// isPush reports whether a value from the server answers no command: a RESP3
// push, or, on a connection that subscribed, what RESP2 sends in its place.
func isPush(frame []byte, subscribed bool) bool {
	if frame[0] == '>' {
		return true
	}
	if !subscribed || frame[0] != '*' {
		return false
	}
	return pushKinds[kind(frame)]
}

var pushKinds = map[string]bool{
	"message": true, "pmessage": true, "smessage": true,
	"subscribe": true, "psubscribe": true, "ssubscribe": true,
	"unsubscribe": true, "punsubscribe": true, "sunsubscribe": true,
}

// kind returns the first element of an array of bulk strings, or "".
func kind(frame []byte) string {
	r := bufio.NewReader(bytes.NewReader(frame))
	if _, err := readLine(r); err != nil {
		return ""
	}
	first, err := readFrame(r, nil)
	if err != nil {
		return ""
	}
	_, word, _ := bytes.Cut(first, []byte("\r\n"))
	return string(bytes.TrimSuffix(word, []byte("\r\n")))
}

// subscribes reports whether the server answers cmd with pushes only.
func subscribes(name string) bool { return pushKinds[name] && strings.HasSuffix(name, "subscribe") }
