package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Go collects garbage when the heap has doubled, and a gateway whose clients fall silent allocates nothing: what a
// wave of logins left behind would stay for minutes, and the room that it took for good. trimMemory gives it back in
// quiet moments, when it is worth the work, so that the memory an operator sees is the memory that is used.
func trimMemory(ctx context.Context) {
	const (
		every = time.Second
		pause = 10 * time.Second // from one time to the next
		worth = 8 << 20          // bytes of garbage, or a sixteenth of what is used
	)
	samples := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/gc/heap/live:bytes"},                // at the end of the last cycle
		{Name: "/memory/classes/heap/objects:bytes"}, // now, garbage included
		{Name: "/memory/classes/heap/free:bytes"},    // kept for what may come
	}
	var cycles, size uint64
	var last time.Time
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
		enough := max(worth, live/16)
		// Long polls that come round once a minute are quiet enough.
		quiet := cycles == lastCycles && size-min(size, lastSize) < enough/4
		if quiet && size+samples[3].Value.Uint64() > live+enough && time.Since(last) >= pause {
			debug.FreeOSMemory()
			last = time.Now()
		}
	}
}
