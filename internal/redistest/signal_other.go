//go:build !unix

package redistest

import "os"

var sigTerm, sigStop, sigCont os.Signal = os.Kill, os.Kill, os.Kill
