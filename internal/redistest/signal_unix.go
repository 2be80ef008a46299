//go:build unix

package redistest

import (
	"os"
	"syscall"
)

// Signals that Server sends. A platform without them cannot run these tests.
var (
	sigTerm os.Signal = syscall.SIGTERM
	sigStop os.Signal = syscall.SIGSTOP
	sigCont os.Signal = syscall.SIGCONT
)
