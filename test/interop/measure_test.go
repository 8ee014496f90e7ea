// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"net/http"
	"os"
	"slices"
	"testing"
	"time"
)

// TestMeasure measures negotiations one after the other, between two connectors of a kind, each a process of its own: Kaphera with its
// PostgreSQL, EDC in memory, as it comes and with state machines that look for work every 10 ms. It judges nothing.
func TestMeasure(t *testing.T) {
	if os.Getenv("INTEROP_MEASURE") == "" {
		t.Log("nothing is measured: INTEROP_MEASURE is not set")
		return
	}
	source := backend(t)
	var base time.Duration
	for _, c := range []struct {
		name  string
		start func(t *testing.T, name string) *connector
	}{
		{"Kaphera", mockKaphera},
		{"EDC, 10 ms", func(t *testing.T, name string) *connector { return mockEDC(t, name, 10) }},
		{"EDC, default", func(t *testing.T, name string) *connector { return mockEDC(t, name, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			provider, consumer := c.start(t, "provider"), c.start(t, "consumer")
			provider.offer(t, "open", source, use(), "pcf")
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			var took []time.Duration
			lost := 0
			offer := consumer.offerOf(t, provider, "pcf")
			for i := range 30 {
				begin := time.Now()
				id := consumer.request(t, provider, "pcf", offer)
				var v view
				for v.State != "FINALIZED" && v.State != "TERMINATED" {
					<-tick.C
					consumer.call(t, http.MethodGet, negotiations+"/"+id+"/state", nil, &v)
				}
				if v.State == "TERMINATED" { // EDC with itself: its messages overtake each other
					lost++
				} else if i >= 10 { // warm by then
					took = append(took, time.Since(begin))
				}
			}
			slices.Sort(took)
			median := took[len(took)/2]
			if base == 0 {
				base = median
			}
			t.Logf("%s: request to FINALIZED %s (median of %d; %s to %s), %.1f times Kaphera's, %d lost; memory %d and %d MB", c.name, median.Round(time.Millisecond), len(took),
				took[0].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), float64(median)/float64(base), lost, provider.process.rss(t), consumer.process.rss(t))
		})
	}
}
