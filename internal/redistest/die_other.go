//go:build !linux

package redistest

import "os/exec"

// dieWithParent does nothing: only Linux can do it. A server outlives a test
// binary that is killed.
func dieWithParent(*exec.Cmd) {}
