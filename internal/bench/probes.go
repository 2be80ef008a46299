package main

// A probe is one thing to measure, on each side in turn.
type probe struct {
	key string
	// once: the figure does not depend on the clock, so one round will do.
	once bool
	run  func(b *bench, s side) figures
	// ceiling makes the same Redis calls without jobs. May be nil.
	ceiling func(b *bench) figures
	rows    []row
}

// A row is one line of the table.
type row struct {
	metric, title, unit string
	lower               bool // less is better
	must                *bound
	aim                 string
	// only: for redrive alone there is something to say.
	only bool
}

// bound is what must hold: of the ratio to asynq, or of redrive's own figure.
type bound struct {
	absolute bool
	atMost   bool
	value    float64
	text     string
}

func atLeast(v float64, text string) *bound { return &bound{value: v, text: text} }
func atMost(v float64, text string) *bound  { return &bound{value: v, text: text, atMost: true} }
func (b *bound) own() *bound                { c := *b; c.absolute = true; return &c }

func (b *bound) holds(v float64) bool {
	if b.atMost {
		return v <= b.value
	}
	return v >= b.value
}

func rate(title string, must *bound, aim string) row {
	return row{metric: "rate", title: title, unit: "jobs/s", must: must, aim: aim}
}

func costs(what string, full bool) []row {
	rows := []row{
		{metric: "redis_cpu", title: "  Redis CPU, " + what, unit: "µs/job", lower: true},
		{metric: "client_cpu", title: "  client CPU, " + what, unit: "µs/job", lower: true},
		{metric: "allocs", title: "  allocations, " + what, unit: "/job", lower: true},
	}
	if full {
		rows = append(rows,
			row{metric: "alloc_bytes", title: "  allocated, " + what, unit: "B/job", lower: true},
			row{metric: "scripts", title: "  script calls, " + what, unit: "/job", lower: true},
			row{metric: "commands", title: "  commands in all, " + what, unit: "/job", lower: true},
			row{metric: "net", title: "  network, " + what, unit: "B/job", lower: true})
	}
	return rows
}

// probes lists the measures in the order of the table.
func probes(b *bench) []probe {
	large, slow, fast := 1_000_000, 20, 200
	if b.quick {
		large, slow = 200_000, 5
	}
	return []probe{
		{
			key: "drain50", run: func(b *bench, s side) figures { return b.drain(s, 50) },
			ceiling: func(b *bench) figures { return b.bareDrain(50) },
			rows:    append([]row{rate("drain, 50 slots", atLeast(8, "≥ 8×"), "15×")}, costs("worker", true)...),
		},
		{
			key: "drain10", run: func(b *bench, s side) figures { return b.drain(s, 10) },
			ceiling: func(b *bench) figures { return b.bareDrain(10) },
			rows:    []row{rate("drain, 10 slots", atLeast(6, "≥ 6×"), "10×")},
		},
		{
			key: "decode50", run: func(b *bench, s side) figures { return b.decoding(s, 50) },
			rows: []row{rate("drain, 50 slots, JSON decoded", nil, ""),
				{metric: "client_cpu", title: "  client CPU, worker", unit: "µs/job", lower: true}},
		},
		{
			key: "decode10", run: func(b *bench, s side) figures { return b.decoding(s, 10) },
			rows: []row{rate("drain, 10 slots, JSON decoded", nil, "")},
		},
		{
			key: "life", run: func(b *bench, s side) figures { return b.life(s) },
			rows: []row{
				{metric: "redis_cpu", title: "Redis CPU, single enqueue + run", unit: "µs/job", lower: true, must: atMost(0.25, "≤ 1/4"), aim: "1/8"},
				{metric: "client_cpu", title: "  client CPU, single enqueue + run", unit: "µs/job", lower: true},
			},
		},
		{
			key: "enqueue", run: func(b *bench, s side) figures { return b.enqueue(s, "enqueue", 50) },
			ceiling: func(b *bench) figures { return b.bareEnqueue(int(b.rates["redriveenqueuebatch"])) },
			rows: append([]row{rate("single Enqueue, 50 goroutines, one client", atLeast(2.5, "≥ 2.5×"), "5×")},
				costs("producer", false)...),
		},
		{
			key: "many", run: func(b *bench, s side) figures { return b.many(s) },
			ceiling: func(b *bench) figures { return b.bareEnqueue(500) },
			rows: append([]row{rate("EnqueueMany of 500; asynq: 10 producers", atLeast(4, "≥ 4×"), "8×")},
				costs("bulk producer", false)...),
		},
		{
			key: "memory", once: true, run: func(b *bench, s side) figures { return b.memory(s) },
			rows: []row{{metric: "bytes", title: "Redis memory per waiting job", unit: "B", lower: true, must: atMost(0.65, "≤ 0.65×"), aim: "0.5×"}},
		},
		{
			key: "pickup", once: true,
			run: func(b *bench, s side) figures {
				if s == side(b.redrive) {
					return b.pickup(s, fast, false)
				}
				return b.pickup(s, slow, false)
			},
			ceiling: func(b *bench) figures { return b.barePickup(fast) },
			rows: []row{
				{metric: "p50", title: "idle pick-up p50", unit: "ms", lower: true, must: atMost(1, "≤ 1 ms").own(), aim: "0.3 ms"},
				{metric: "p99", title: "idle pick-up p99", unit: "ms", lower: true, must: atMost(5, "≤ 5 ms").own()},
				{metric: "idle_commands", title: "  commands of an idle worker", unit: "/s", lower: true},
			},
		},
		{
			key: "eager", once: true,
			run: func(b *bench, s side) figures { return b.pickup(s, fast, true) },
			rows: []row{
				{metric: "p50", title: "idle pick-up p50; asynq polls every 1 ms", unit: "ms", lower: true},
				{metric: "p99", title: "idle pick-up p99; asynq polls every 1 ms", unit: "ms", lower: true},
				{metric: "idle_commands", title: "  commands of that idle worker", unit: "/s", lower: true},
				{metric: "idle_cpu", title: "  Redis CPU of that idle worker", unit: "%", lower: true},
			},
		},
		{
			key: "backlog",
			run: func(b *bench, s side) figures {
				if s != side(b.redrive) {
					return nil
				}
				return b.backlog(s, large)
			},
			rows: []row{
				{metric: "ratio", title: "drain rate, " + thousands(large) + " waiting to 20,000", unit: "×", only: true, must: atLeast(0.9, "≥ 0.9").own(), aim: "1.0"},
			},
		},
		{
			key: "retry", run: func(b *bench, s side) figures { return b.retries(s) },
			rows: append([]row{rate("every job fails once, retried after 1 ms", atLeast(4, "≥ 4×"), "8×")}, costs("retry", false)...),
		},
		{
			key: "latency", run: func(b *bench, s side) figures { return b.latency(s, b.capacity("asynq")/2) },
			rows: []row{
				{metric: "rate", title: "latency at half of asynq's capacity: load", unit: "jobs/s", must: nil},
				{metric: "p50", title: "  p50", unit: "ms", lower: true},
				{metric: "p99", title: "  p99", unit: "ms", lower: true},
			},
		},
		{
			key: "own", run: func(b *bench, s side) figures { return b.latency(s, b.capacity(s.name())/2) },
			rows: []row{
				{metric: "rate", title: "latency at half of its own capacity: load", unit: "jobs/s"},
				{metric: "p50", title: "  p50", unit: "ms", lower: true},
				{metric: "p99", title: "  p99", unit: "ms", lower: true},
			},
		},
	}
}

// capacity is how many jobs a second a side can enqueue and run at the same
// time: producers, worker and Redis share the machine.
func (b *bench) capacity(name string) float64 {
	s := side(b.redrive)
	if name == b.asynq.name() {
		s = b.asynq
	}
	if b.rates[name+"drain50"] == 0 {
		b.drain(s, 50)
	}
	if b.rates[name+"enqueue"] == 0 {
		b.enqueue(s, "enqueue", 50)
	}
	return 1 / (1/b.rates[name+"drain50"] + 1/b.rates[name+"enqueue"])
}
