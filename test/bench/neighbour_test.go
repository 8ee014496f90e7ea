// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/kaphera/kaphera/test/interop/rig"
)

// noises are what the neighbour's readers do.
var noises = []struct {
	name    string
	readers int
	asset   string
	rude    bool // comes again at once when it is turned away
}{{"alone", 0, "", false}, {"neighbour's backend hangs", 256, "hanging", false}, {"neighbour is read all the time", 16, "data", false},
	{"the first, and who is turned away comes back at once", 256, "hanging", true}}

// TestNeighbour measures what one participant of a connector notices of another one: accesses to its data and negotiations, one after the other.
func TestNeighbour(t *testing.T) {
	rounds, negotiated := 100, 4
	if os.Getenv("BENCH") == "full" {
		rounds, negotiated = 2000, 30
	}
	waiting := &atomic.Int64{}
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		waiting.Add(1)
		defer waiting.Add(-1)
		<-r.Context().Done()
	}))
	t.Cleanup(hang.Close)
	source := backend(t)
	providers, consumer := rig.MockParticipants(t, "shared", "quiet", "noisy"), rig.MockKaphera(t, "consumer")
	quiet, noisy := providers[0], providers[1]
	for _, p := range providers {
		p.Asset(t, "data", source+"/1024")
		p.Asset(t, "hanging", hang.URL)
		p.Define(t, "all", rig.Use())
	}
	through := consumer.Transfer(t, quiet, "data").Access(t)
	noise := map[string]rig.EDR{"data": consumer.Transfer(t, noisy, "data").Access(t), "hanging": consumer.Transfer(t, noisy, "hanging").Access(t)}
	half, worst := &row{what: "access to 1 KiB, p50", unit: "µs"}, &row{what: "access to 1 KiB, p99", unit: "µs"}
	negotiation := &row{what: "negotiation, request to FINALIZED, median", unit: "µs"}
	heads := []string{""}
	offer := consumer.OfferOf(t, quiet, "data")
	access := func() time.Duration {
		begin := time.Now()
		if status, body := through.Fetch(t); status != http.StatusOK || len(body) != 1024 {
			t.Fatalf("an access answers %d with %d bytes", status, len(body))
		}
		return time.Since(begin)
	}
	for range rounds / 2 { // to warm up
		access()
	}
	for _, n := range noises {
		heads = append(heads, n.name)
		stop := reading(t, noise[n.asset], n.readers, n.rude)
		if n.asset == "hanging" {
			rig.Until(t, "readers wait for the neighbour's backend", func() (bool, string) { return waiting.Load() >= 64, fmt.Sprint(waiting.Load()) })
		}
		var took []time.Duration
		for range rounds {
			took = append(took, access())
		}
		half.add(percentile(took, 50))
		worst.add(percentile(took, 99))
		took = nil
		for range negotiated {
			begin := time.Now()
			consumer.Ends(t, rig.Negotiations, consumer.Request(t, quiet, "data", offer), "FINALIZED")
			took = append(took, time.Since(begin))
		}
		negotiation.add(percentile(took, 50))
		if served := stop(); n.asset == "data" && served == 0 {
			t.Error("the neighbour was not read at all")
		}
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	for i, n := range noises[1:] {
		heads[i+2] += fmt.Sprintf(" (%d clients)", n.readers)
	}
	for _, line := range append([]string{strings.Join(heads, "\t")}, half.String(), worst.String(), negotiation.String()) {
		_, _ = fmt.Fprintln(out, line)
	}
	rig.Must(t, out.Flush())
}

// reading has clients read over and over until stop is called, which tells how often they were served. One that is turned away comes again after a
// second, unless it is rude.
func reading(t *testing.T, from rig.EDR, clients int, rude bool) (stop func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	var served atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.Endpoint, nil)
				if err != nil {
					return
				}
				req.Header.Set("Authorization", from.Token)
				res, err := client.Do(req)
				if err != nil {
					continue // it is over, or the connector said no
				}
				if _, err = io.Copy(io.Discard, res.Body); err == nil && res.StatusCode == http.StatusOK {
					served.Add(1)
				}
				_ = res.Body.Close()
				if !rude && res.StatusCode != http.StatusOK {
					select {
					case <-ctx.Done():
					case <-time.After(time.Second):
					}
				}
			}
		})
	}
	stop = sync.OnceValue(func() int64 {
		cancel()
		wg.Wait()
		client.CloseIdleConnections()
		return served.Load()
	})
	t.Cleanup(func() { stop() })
	return stop
}

// percentile in µs.
func percentile(took []time.Duration, p int) float64 {
	slices.Sort(took)
	return float64(took[(len(took)-1)*p/100].Microseconds())
}
