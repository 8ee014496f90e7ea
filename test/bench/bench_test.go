// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package bench

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/kaphera/kaphera/test/interop/rig"
)

func TestMain(m *testing.M) { os.Exit(rig.Main(m)) }

// kind is what is compared: two connectors of a kind with each other.
type kind struct {
	name  string
	start func(t *testing.T, name string) *rig.Connector
}

func edc(wait int) func(*testing.T, string) *rig.Connector {
	return func(t *testing.T, name string) *rig.Connector {
		t.Helper()
		return rig.MockEDC(t, name, wait)
	}
}

// size is how much is done. The small one only shows that everything still yields numbers.
type size struct {
	kinds        []kind
	warm, rounds int // negotiations, catalogs
	assets       int
	bodies       []body // of the data plane
}

// body is a size of data and how often each number of clients reads it.
type body struct{ bytes, requests int }

func (b body) asset() string { return fmt.Sprintf("body-%d", b.bytes) }

// clients are how many read at once.
var clients = []int{1, 16, 64}

var (
	small = size{[]kind{{"Kaphera", rig.MockKaphera}, {"EDC, quick", edc(10)}}, 1, 2, 60, []body{{1 << 10, 128}, {64 << 10, 64}, {1 << 20, 64}}}
	full  = size{[]kind{{"Kaphera", rig.MockKaphera}, {"EDC, quick", edc(10)}, {"EDC, default", edc(0)}}, 10, 20, 1000,
		[]body{{1 << 10, 6400}, {64 << 10, 3200}, {1 << 20, 640}, {256 << 20, 8}}}
)

// row is a line of a table: a number for each column, the first of which the others are compared with.
type row struct {
	what, unit string
	of         []float64
}

func (r *row) add(v float64) { r.of = append(r.of, v) }

func (r *row) String() string {
	cells := []string{r.what, fmt.Sprintf("%.0f %s", r.of[0], r.unit)}
	for _, v := range r.of[1:] {
		cells = append(cells, fmt.Sprintf("%.0f %s (%.2f×)", v, r.unit, v/r.of[0]))
	}
	return strings.Join(cells, "\t")
}

func TestBench(t *testing.T) {
	run := small
	if os.Getenv("BENCH") == "full" {
		run = full
	}
	source := backend(t)
	typical, slowest := &row{what: "negotiation, request to FINALIZED, median", unit: "ms"}, &row{what: "negotiation, the slowest", unit: "ms"}
	catalog := &row{what: fmt.Sprintf("catalog of %d assets, median", run.assets), unit: "ms"}
	atStart, atEnd := &row{what: "memory at the start, provider and consumer", unit: "MB"}, &row{what: "memory after that", unit: "MB"}
	var data []*row
	heads := []string{""}
	for _, k := range run.kinds {
		heads = append(heads, k.name)
		t.Run(k.name, func(t *testing.T) {
			provider, consumer := k.start(t, "provider"), k.start(t, "consumer")
			memory := func() float64 { return float64(provider.Process.RSS(t) + consumer.Process.RSS(t)) }
			atStart.add(memory())
			offerAll(t, provider, source, run)
			median, worst := negotiations(t, provider, consumer, run)
			typical.add(median)
			slowest.add(worst)
			catalog.add(catalogs(t, provider, consumer, run))
			atEnd.add(memory())
			if provider.Name == "EDC" { // 0.15.1 comes without an endpoint for data; the one in the rig is ours
				return
			}
			for _, b := range run.bodies {
				through := consumer.Transfer(t, provider, b.asset()).Access(t)
				for _, n := range clients {
					if n > b.requests {
						break
					}
					r := &row{what: fmt.Sprintf("bodies of %d KiB, clients: %d", b.bytes>>10, n), unit: "KiB/s"}
					for _, from := range []rig.EDR{{Endpoint: source + "/" + strconv.Itoa(b.bytes)}, through} {
						took, got := load(t, from, n, b.requests)
						r.add(float64(got) / 1024 / took.Seconds())
					}
					data = append(data, r)
				}
			}
		})
	}
	if t.Failed() {
		return
	}
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	numbers := 0
	table := func(heads []string, rows ...*row) {
		_, _ = fmt.Fprintln(out, strings.Join(heads, "\t"))
		for _, r := range rows {
			for _, v := range r.of {
				if v <= 0 {
					t.Errorf("%s: %v %s", r.what, v, r.unit)
				}
				numbers++
			}
			_, _ = fmt.Fprintln(out, r)
		}
	}
	table(heads, typical, slowest, catalog, atStart, atEnd)
	table([]string{"", "direct", "through Kaphera"}, data...)
	rig.Must(t, out.Flush())
	fmt.Printf("bench: %d numbers\n", numbers)
}

// backend serves bodies of the size that the path names, in bytes.
func backend(t *testing.T) string {
	t.Helper()
	chunk := make([]byte, 64<<10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		left, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(left))
		for err == nil && left > 0 {
			var n int
			n, err = w.Write(chunk[:min(left, len(chunk))])
			left -= n
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func asset(i int) string { return fmt.Sprintf("part-%04d", i) }

// offerAll offers all assets that a provider has: run.assets, the last of which are the bodies.
func offerAll(t *testing.T, provider *rig.Connector, source string, run size) {
	t.Helper()
	for i := range run.assets {
		id, bytes := asset(i), 1024
		if n := i - (run.assets - len(run.bodies)); n >= 0 {
			id, bytes = run.bodies[n].asset(), run.bodies[n].bytes
		}
		provider.Asset(t, id, source+"/"+strconv.Itoa(bytes))
	}
	provider.Define(t, "all", rig.Use())
}

// negotiations measures one negotiation after the other, in ms from the request to FINALIZED at the consumer.
func negotiations(t *testing.T, provider, consumer *rig.Connector, run size) (median, slowest float64) {
	t.Helper()
	offer := consumer.OfferOf(t, provider, asset(0))
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	return measure(run, func() bool {
		id := consumer.Request(t, provider, asset(0), offer)
		var v rig.View
		for v.State != "FINALIZED" && v.State != "TERMINATED" {
			<-tick.C
			consumer.Call(t, http.MethodGet, rig.Negotiations+"/"+id+"/state", nil, &v)
		}
		if v.State == "TERMINATED" {
			t.Logf("a negotiation was lost: EDC's own messages overtake each other now and then")
		}
		return v.State == "FINALIZED"
	})
}

// catalogs measures how long the consumer needs for the whole catalog, in ms.
func catalogs(t *testing.T, provider, consumer *rig.Connector, run size) float64 {
	t.Helper()
	median, _ := measure(run, func() bool {
		if n := len(consumer.Catalog(t, provider, 0, run.assets)); n != run.assets {
			t.Fatalf("the catalog has %d data sets, want %d", n, run.assets)
		}
		return true
	})
	return median
}

// measure repeats what counts when it says so, until it counted often enough, and returns median and maximum in ms.
func measure(run size, once func() bool) (median, slowest float64) {
	var took []float64
	for i := 0; len(took) < run.rounds; i++ {
		begin := time.Now()
		if ok := once(); ok && i >= run.warm {
			took = append(took, float64(time.Since(begin).Microseconds())/1000)
		}
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-1]
}

// load reads bodies by some clients at once and returns how long all of it took, and how many bytes it was.
func load(t *testing.T, from rig.EDR, clients, requests int) (time.Duration, int64) {
	t.Helper()
	client := &http.Client{Timeout: rig.Patience, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	fetch := func() (int64, error) {
		req, err := http.NewRequest(http.MethodGet, from.Endpoint, nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", from.Token)
		res, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("%s answers %s", from.Endpoint, res.Status)
		}
		return io.Copy(io.Discard, res.Body)
	}
	var (
		wg   sync.WaitGroup
		lock sync.Mutex
		sum  int64
		bad  error
	)
	begin := time.Now()
	for range clients {
		wg.Go(func() {
			for range requests / clients {
				n, err := fetch()
				lock.Lock()
				sum, bad = sum+n, cmp.Or(bad, err)
				lock.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	rig.Must(t, bad)
	return took, sum
}
