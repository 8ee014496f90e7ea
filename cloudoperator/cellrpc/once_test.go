// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
)

const patience = 2 * time.Minute

// cell is one whose connector counts what it is asked, by path.
type cell struct {
	server *natstest.Server
	seed   []byte
	url    string
	cloud  *nats.Conn
	calls  *prometheus.Registry // metrics of the agent that was started last

	mu    sync.Mutex
	asked map[string]int
	hold  map[string]chan struct{} // paths that say when they are asked, and are answered once it is closed
}

func newCell(t *testing.T) *cell {
	t.Helper()
	s, err := natstest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	c := &cell{server: s, asked: map[string]int{}, hold: map[string]chan struct{}{}}
	ctx, cancel := context.WithTimeout(t.Context(), patience) // JetStream's own would be 5 s
	defer cancel()
	if c.seed, err = s.Cell(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/api/supplier/v1")
		c.mu.Lock()
		c.asked[path]++
		n, hold := c.asked[path], c.hold[path]
		c.mu.Unlock()
		if hold != nil {
			hold <- struct{}{}
			<-hold
		}
		if path == "/large" {
			_, _ = w.Write(make([]byte, 100<<10))
			return
		}
		_, _ = io.WriteString(w, "answer "+strconv.Itoa(n))
	}))
	t.Cleanup(h.Close)
	c.url = h.URL
	c.cloud = c.connect(t, celllink.CloudPermissions)
	return c
}

func (c *cell) connect(t *testing.T, p natsauth.Permissions) *nats.Conn {
	t.Helper()
	nc, err := c.server.Connect(c.seed, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// agent serves until the test ends, or stop is called, with a clock that is wrong by skew. It returns once calls arrive.
func (c *cell) agent(t *testing.T, skew time.Duration) (stop func()) {
	t.Helper()
	return c.agentWith(t, skew, celllink.AgentPermissions)
}

func (c *cell) forwarder(skew time.Duration) *cellrpc.Forwarder {
	c.calls = prometheus.NewRegistry()
	return cellrpc.NewForwarder(func(context.Context, cellrpc.Request) (cellrpc.Target, bool, error) {
		return cellrpc.Target{URL: c.url}, true, nil
	}, func() time.Time { return time.Now().Add(skew) }, slog.New(slog.DiscardHandler), c.calls)
}

func (c *cell) agentWith(t *testing.T, skew time.Duration, p natsauth.Permissions) (stop func()) {
	t.Helper()
	nc, f := c.connect(t, p), c.forwarder(skew)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- f.Serve(ctx, nc, func() {}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	deadline := time.After(patience)
	for {
		got, err := c.try(cellrpc.Request{ID: "up", Method: "GET", Path: "/up", Expires: time.Now().Add(patience)})
		if err == nil && got.Status == http.StatusOK {
			return stop
		}
		select {
		case <-deadline:
			t.Fatalf("no agent: %v %s", err, got.Body)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *cell) try(r cellrpc.Request) (resp cellrpc.Response, err error) {
	r.Participant = "supplier"
	data, err := json.Marshal(r)
	if err != nil {
		return resp, err
	}
	msg, err := c.cloud.Request(cellrpc.Subject, data, patience)
	if err != nil {
		return resp, err
	}
	return resp, json.Unmarshal(msg.Data, &resp)
}

func (c *cell) ask(t *testing.T, r cellrpc.Request) cellrpc.Response {
	t.Helper()
	resp, err := c.try(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (c *cell) count(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[path]
}

// counted is a counter with these values of its labels, in the order of their names; 0 when there is none.
func counted(t *testing.T, g prometheus.Gatherer, name string, labels ...string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == name && slices.Equal(values, labels) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// TestWhoLeavesAnswersWhatHasArrived: an agent that stops working on a connection answers all calls that came through it, also those for which it had
// no room yet.
func TestWhoLeavesAnswersWhatHasArrived(t *testing.T) {
	t.Parallel()
	const calls = 100
	c := newCell(t)
	for i := range calls {
		c.hold["/"+strconv.Itoa(i)] = make(chan struct{})
	}
	nc := c.connect(t, celllink.AgentPermissions)
	ctx, leave := context.WithCancel(t.Context())
	ready, served := make(chan struct{}), make(chan error, 1)
	go func() { served <- c.forwarder(0).Serve(ctx, nc, func() { close(ready) }) }()
	<-ready
	inbox, answers := nats.NewInbox(), make(chan *nats.Msg, calls)
	if _, err := c.cloud.ChanSubscribe(inbox+".*", answers); err != nil {
		t.Fatal(err)
	}
	for i := range calls {
		data, err := json.Marshal(cellrpc.Request{ID: strconv.Itoa(i), Participant: "supplier", Method: "POST", Path: "/" + strconv.Itoa(i), Expires: in(patience)})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.cloud.PublishRequest(cellrpc.Subject, inbox+"."+strconv.Itoa(i), data); err != nil {
			t.Fatal(err)
		}
	}
	for _, conn := range []*nats.Conn{c.cloud, nc} { // after which all have arrived
		if err := conn.FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	for _, held := range c.hold {
		go func() { <-held; close(held) }()
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	deadline := time.After(patience)
	for n := range calls {
		select {
		case msg := <-answers:
			var resp cellrpc.Response
			if err := json.Unmarshal(msg.Data, &resp); err != nil || resp.Status != http.StatusOK {
				t.Errorf("%s: %v", msg.Data, err)
			}
		case <-deadline:
			t.Fatalf("%d of %d calls are answered", n, calls)
		}
	}
}

func in(d time.Duration) time.Time { return time.Now().Add(d) }

// Whatever the cell's own clock says, a call is judged by the cloud's.
func TestACallThatHasExpiredIsNotExecuted(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"right": 0, "slow": -6 * time.Hour, "fast": 6 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCell(t)
			c.agent(t, skew)
			late := c.ask(t, cellrpc.Request{ID: "1", Method: "POST", Path: "/late", Expires: in(-time.Minute)})
			if late.Status != http.StatusGatewayTimeout || !strings.Contains(string(late.Body), "not executed") || c.count("/late") != 0 {
				t.Errorf("late: %d %s, executed %d times", late.Status, late.Body, c.count("/late"))
			}
			if got := c.ask(t, cellrpc.Request{ID: "2", Method: "POST", Path: "/good", Expires: in(patience)}); got.Status != http.StatusOK || c.count("/good") != 1 {
				t.Errorf("in time: %d %s, executed %d times", got.Status, got.Body, c.count("/good"))
			}
			if got := c.ask(t, cellrpc.Request{Method: "POST", Path: "/old"}); got.Status != http.StatusOK || !got.Once {
				t.Errorf("of a Cloud API without expiry: %d %s", got.Status, got.Body)
			}
			for outcome, want := range map[string]float64{"expired": 1, "executed": 2, "repeated": 0} {
				if n := counted(t, c.calls, "kaphera_agent_calls_total", "command", outcome); n != want {
					t.Errorf("%v commands are counted as %s", n, outcome)
				}
			}
		})
	}
}

// Credentials that may not ask for the time, of before the agent did, keep no cell from working.
func TestAnAgentThatIsNotToldTheTimeServes(t *testing.T) {
	t.Parallel()
	p := celllink.AgentPermissions
	p.Publish = slices.DeleteFunc(slices.Clone(p.Publish), func(s string) bool { return s == cellrpc.SubjectTime })
	c := newCell(t)
	c.agentWith(t, 0, p)
	if got := c.ask(t, cellrpc.Request{ID: "1", Method: "POST", Path: "/late", Expires: in(-time.Minute)}); got.Status != http.StatusGatewayTimeout || c.count("/late") != 0 {
		t.Errorf("late: %d %s, executed %d times", got.Status, got.Body, c.count("/late"))
	}
}

func TestARepeatIsAnsweredAndNotExecuted(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	stop := c.agent(t, 0)
	first := cellrpc.Request{ID: "1", Method: "POST", Path: "/once", Expires: in(patience)}
	repeat := first
	repeat.Repeated = true
	for range 3 {
		if got := c.ask(t, repeat); string(got.Body) != "answer 1" {
			t.Errorf("%d %s", got.Status, got.Body)
		}
		if got := c.ask(t, first); string(got.Body) != "answer 1" {
			t.Errorf("%d %s", got.Status, got.Body)
		}
	}
	other := first
	other.ID = "2"
	if got := c.ask(t, other); string(got.Body) != "answer 2" {
		t.Errorf("another call: %d %s", got.Status, got.Body)
	}
	for outcome, want := range map[string]float64{"executed": 2, "repeated": 5} {
		if n := counted(t, c.calls, "kaphera_agent_calls_total", "command", outcome); n != want {
			t.Errorf("%v commands are counted as %s", n, outcome)
		}
	}

	// A repeat while it is being executed.
	hold := make(chan struct{})
	c.mu.Lock()
	c.hold["/slow"] = hold
	c.mu.Unlock()
	answers := make(chan string, 2)
	slow := cellrpc.Request{ID: "3", Method: "POST", Path: "/slow", Expires: in(patience)}
	call := func() {
		got, err := c.try(slow)
		answers <- string(got.Body) + errText(err)
	}
	go call()
	<-hold
	go call()
	close(hold)
	for range 2 {
		if got := <-answers; got != "answer 1" {
			t.Errorf("under way: %s", got)
		}
	}

	// An answer that is too large to be kept.
	large := cellrpc.Request{ID: "5", Method: "POST", Path: "/large", Expires: in(patience)}
	if got := c.ask(t, large); len(got.Body) != 100<<10 {
		t.Errorf("large: %d, %d bytes", got.Status, len(got.Body))
	}
	if got := c.ask(t, large); got.Status != http.StatusConflict || !strings.Contains(string(got.Body), "was executed") || c.count("/large") != 1 {
		t.Errorf("large again: %d %s, executed %d times", got.Status, got.Body, c.count("/large"))
	}

	// What only asks may be asked again.
	read := cellrpc.Request{ID: "6", Method: "GET", Path: "/read", Expires: in(patience)}
	c.ask(t, read)
	if got := c.ask(t, read); string(got.Body) != "answer 2" {
		t.Errorf("read again: %s", got.Body)
	}

	// Another agent can't know what this one did.
	var got cellrpc.Response
	for round := 0; round == 0 || got.Status == http.StatusGatewayTimeout && round < 5; round++ { // the machine was too busy to start an agent meanwhile
		stop()
		repeat.Expires = in(cellrpc.Timeout)
		stop = c.agent(t, 0)
		got = c.ask(t, repeat)
	}
	if got.Status != http.StatusConflict || !strings.Contains(string(got.Body), "started anew") || c.count("/once") != 2 {
		t.Errorf("after a restart: %d %s, executed %d times", got.Status, got.Body, c.count("/once"))
	}
	if n := counted(t, c.calls, "kaphera_agent_calls_total", "command", "unknown"); n != 1 {
		t.Errorf("%v commands are counted as unknown", n)
	}
	read.Repeated = true
	if got := c.ask(t, read); got.Status != http.StatusOK {
		t.Errorf("read after a restart: %d %s", got.Status, got.Body)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A connection that broke without a word still has its subscription in the server, which gives it calls. They are repeated, and each is executed once.
func TestWhatIsLostIsRepeated(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	c.agent(t, 0)
	creds, err := natsauth.Credentials(c.seed, "cloud", celllink.CloudPermissions)
	if err != nil {
		t.Fatal(err)
	}
	caller := cellrpc.NewCaller(c.server.URL(), nil, func(context.Context, string) ([]byte, error) { return creds, nil }, nil)
	t.Cleanup(caller.Close)
	eventuallyAnswered(t, caller)
	const calls = 32
	for round := 0; ; round++ {
		broken := c.connect(t, celllink.AgentPermissions)
		lost, err := broken.QueueSubscribeSync(cellrpc.Subject, "agent")
		if err != nil {
			t.Fatal(err)
		}
		if err := broken.FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
		var g sync.WaitGroup
		late := make(chan error, calls)
		for i := range calls {
			path := "/lost/" + strconv.Itoa(round) + "/" + strconv.Itoa(i)
			g.Go(func() {
				got, err := caller.Call(t.Context(), "a", cellrpc.Request{Participant: "supplier", Method: "POST", Path: path})
				switch {
				case errors.Is(err, cellrpc.ErrNotConnected):
					late <- err
				case err != nil || string(got.Body) != "answer 1":
					t.Errorf("%s: %d %s %v", path, got.Status, got.Body, err)
				}
			})
		}
		for range 2 { // of 32, about half; then the server has found out
			if _, err := lost.NextMsg(patience); err != nil {
				t.Fatal(err)
			}
		}
		broken.Close()
		g.Wait()
		c.mu.Lock()
		for path, n := range c.asked {
			if n != 1 && path != "/up" {
				t.Errorf("%s is executed %d times", path, n)
			}
		}
		c.mu.Unlock()
		if len(late) == 0 {
			return
		}
		if round == 5 {
			t.Fatal(<-late) // a machine that is too busy for any answer in time
		}
	}
}

// eventuallyAnswered lets the caller find out that the agent executes a call once.
func eventuallyAnswered(t *testing.T, caller *cellrpc.NATSCaller) {
	t.Helper()
	for range 10 {
		if _, err := caller.Call(t.Context(), "a", cellrpc.Request{Participant: "supplier", Method: "GET", Path: "/up"}); err == nil {
			return
		}
	}
	t.Fatal("no answer")
}

// A call that no agent gets waits for the next one when there was one lately, and is no repeat there.
func TestACallWaitsForTheNextAgent(t *testing.T) {
	t.Parallel()
	c := newCell(t)
	nc := c.connect(t, celllink.CloudPermissions)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r := cellrpc.Request{ID: "waits", Participant: "supplier", Method: "POST", Path: "/waits", Expires: time.Now().Add(patience)}
	if _, err := cellrpc.Send(ctx, nc, r, func() (once, lately bool) { return true, false }); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a call to a cell without an agent: %v", err)
	}
	tries, again, answer := 0, make(chan struct{}), make(chan error, 1)
	go func() {
		msg, err := cellrpc.Send(ctx, nc, r, func() (once, lately bool) {
			if tries++; tries == 2 {
				close(again)
			}
			return true, true
		})
		if err == nil && !strings.Contains(string(msg.Data), `"status":200`) {
			err = errors.New(string(msg.Data))
		}
		answer <- err
	}()
	<-again
	c.agent(t, 0)
	if err := <-answer; err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.asked["/waits"]; n != 1 {
		t.Errorf("executed %d times", n)
	}
}
