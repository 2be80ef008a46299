package redistest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill cmd when this process dies, however it dies.
// Strictly, when the thread that forked it does; Go ends a thread only when a
// goroutine returns with the thread locked, so a test must not do that.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
