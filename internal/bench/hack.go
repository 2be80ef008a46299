package main

import (
	"fmt"
	"os"
	"strconv"
)

func (b *bench) hack() {
	slots, _ := strconv.Atoi(os.Getenv("DRIVE"))
	rounds, _ := strconv.Atoi(os.Getenv("DROUNDS"))
	var s side = b.redrive
	n := 200000
	for range rounds {
		f := b.work(s, "", n, payloadSize, oneQueue(slots))
		fmt.Printf("rate %.0f client %.2f redis %.2f commands %.2f allocs %.2f scripts %.3f\n", f["rate"], f["client_cpu"], f["redis_cpu"], f["commands"], f["allocs"], f["scripts"])
	}
}
