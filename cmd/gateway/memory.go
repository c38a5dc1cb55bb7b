package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Go collects garbage when the heap has doubled, and a gateway whose clients fall silent allocates nothing: what a
// wave of logins left behind would stay for minutes. trimMemory gives it back in quiet moments, when it is worth the
// work, so that the memory an operator sees is the memory that is used.
func trimMemory(ctx context.Context) {
	const (
		every = 5 * time.Second
		worth = 8 << 20 // bytes of garbage, and an eighth of what is used
	)
	samples := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/gc/heap/live:bytes"},                // at the end of the last cycle
		{Name: "/memory/classes/heap/objects:bytes"}, // now, garbage included
	}
	var cycles, size uint64
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		metrics.Read(samples)
		lastCycles, lastSize := cycles, size
		cycles, size = samples[0].Value.Uint64(), samples[2].Value.Uint64()
		live := samples[1].Value.Uint64()
		enough := max(worth, live/8)
		// Long polls that come round once a minute are quiet enough.
		quiet := cycles == lastCycles && size-min(size, lastSize) < enough/2
		if quiet && size > live+enough {
			debug.FreeOSMemory()
		}
	}
}
