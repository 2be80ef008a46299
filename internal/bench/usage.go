package main

import (
	"runtime"
	"strings"
	"syscall"
	"time"
)

// usage is what Redis and this process have used up so far.
type usage struct {
	at         time.Time
	redisCPU   float64 // µs, of Redis's main thread
	commands   float64 // those that scripts make included
	scripts    float64 // script calls, each one round trip
	netBytes   float64
	clientCPU  float64 // µs
	allocs     float64
	allocBytes float64
}

func (s *server) usage() usage {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	var ru syscall.Rusage
	fatal(syscall.Getrusage(syscall.RUSAGE_SELF, &ru))
	info := s.info("cpu", "stats", "commandstats")
	u := usage{
		at: time.Now(),
		redisCPU: 1e6 * (number(info, "used_cpu_sys_main_thread") +
			number(info, "used_cpu_user_main_thread")),
		commands:   number(info, "total_commands_processed"),
		netBytes:   number(info, "total_net_input_bytes") + number(info, "total_net_output_bytes"),
		clientCPU:  float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e3,
		allocs:     float64(mem.Mallocs),
		allocBytes: float64(mem.TotalAlloc),
	}
	for _, cmd := range []string{"cmdstat_evalsha", "cmdstat_eval"} {
		u.scripts += calls(info[cmd])
	}
	return u
}

// calls reads the number of calls from a line of INFO commandstats.
func calls(stat string) float64 {
	stat, _, _ = strings.Cut(strings.TrimPrefix(stat, "calls="), ",")
	var n float64
	for _, c := range stat {
		n = n*10 + float64(c-'0')
	}
	return n
}

// since adds, under the names of costs, what was used per job since u.
func (u usage) since(now usage, jobs int, f figures) {
	n := float64(jobs)
	f["redis_cpu"] = (now.redisCPU - u.redisCPU) / n
	f["client_cpu"] = (now.clientCPU - u.clientCPU) / n
	f["commands"] = (now.commands - u.commands) / n
	f["scripts"] = (now.scripts - u.scripts) / n
	f["net"] = (now.netBytes - u.netBytes) / n
	f["allocs"] = (now.allocs - u.allocs) / n
	f["alloc_bytes"] = (now.allocBytes - u.allocBytes) / n
}
