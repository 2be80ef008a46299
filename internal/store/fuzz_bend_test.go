package store_test

import "fmt"

// A bender makes another reply of one: program says which node becomes what.
type bender struct {
	at, node int
	what     byte
	text     string
}

// bend returns what stands in the place of v.
func (b *bender) bend(v any) []any {
	hit := b.at == b.node
	b.at++
	if hit {
		switch b.what % 16 {
		case 0:
			return []any{nil}
		case 1:
			return []any{int64(-1)}
		case 2:
			return []any{int64(0)}
		case 3:
			return []any{int64(1)}
		case 4:
			return []any{int64(1) << 40}
		case 5:
			return []any{b.text}
		case 6:
			return []any{""}
		case 7:
			return []any{[]any{}}
		case 8:
			return nil
		case 9:
			return []any{v, v}
		case 10:
			return []any{[]any{v}}
		case 11:
			return []any{fmt.Sprint(v) + b.text}
		case 12:
			return []any{b.text + fmt.Sprint(v)}
		case 13:
			return []any{int64(len(b.text))}
		case 14:
			return []any{"-1"}
		default:
			return []any{3.5}
		}
	}
	inner, ok := v.([]any)
	if !ok {
		return []any{v}
	}
	out := []any{}
	for _, e := range inner {
		out = append(out, b.bend(e)...)
	}
	return []any{out}
}

func bend(reply any, program []byte, text string) any {
	for ; len(program) >= 2; program = program[2:] {
		nodes := &bender{node: -1}
		nodes.bend(reply)
		got := (&bender{node: int(program[0]) % nodes.at, what: program[1], text: text}).bend(reply)
		if len(got) == 0 {
			return nil
		}
		reply = got[0]
	}
	return reply
}
