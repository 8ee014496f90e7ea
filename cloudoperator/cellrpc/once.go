// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// SubjectTime is the message server's own; its answer says what time it is in the cloud.
const SubjectTime = "$SYS.REQ.USER.INFO"

// clock is the cloud's: this cell's, put right by what the message server last said. Cells' clocks may be wrong, and a call waits where no cell
// sees it, in a connection that hangs.
type clock struct {
	here  func() time.Time
	ahead atomic.Int64 // of the cloud, ns
}

func (c *clock) now() time.Time { return c.here().Add(time.Duration(c.ahead.Load())) }

func (c *clock) set(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	before := c.here()
	msg, err := nc.RequestWithContext(ctx, SubjectTime, nil)
	if err != nil {
		return fmt.Errorf("ask the message server for its time: %w", err)
	}
	var answer struct {
		Server struct {
			Time time.Time `json:"time"`
		} `json:"server"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil || answer.Server.Time.IsZero() {
		return errors.Join(errors.New("the message server did not say what time it is"), err)
	}
	middle := before.Add(c.here().Sub(before) / 2)
	c.ahead.Store(int64(answer.Server.Time.Sub(middle)))
	return nil
}

// keep sets the clock from time to time, until ctx ends.
func (c *clock) keep(ctx context.Context, nc *nats.Conn, failed func(error)) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := c.set(ctx, nc); err != nil && ctx.Err() == nil {
				failed(err)
			}
		}
	}
}

// Bounds of what is kept of commands for a repeat, in bytes: of one answer and of all together.
const (
	maxKept    = 64 << 10
	maxKeptAll = 16 << 20
)

// once are the calls under way and, until nobody can repeat them any more, the commands that were executed.
type once struct {
	mu    sync.Mutex
	calls map[string]*underWay
	kept  int // bytes
}

type underWay struct {
	waiting []*nats.Msg // the call and its repeats
	answer  []byte      // nil while it is being executed
}

// begin says whether the call is to be executed now. If not, answer is what came of it, nil when that is not known yet and will go to msg, too.
func (o *once) begin(id string, msg *nats.Msg) (execute bool, answer []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, ok := o.calls[id]
	switch {
	case !ok:
		o.calls[id] = &underWay{waiting: []*nats.Msg{msg}}
		return true, nil
	case c.answer == nil:
		c.waiting = append(c.waiting, msg)
	}
	return false, c.answer
}

// end returns who waits for the answer. It keeps the answer of a command, as far as there is room; whatever else is asked for may be asked for again.
func (o *once) end(id string, command bool, answer []byte) []*nats.Msg {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.calls[id]
	if !command {
		delete(o.calls, id)
		return c.waiting
	}
	waiting := c.waiting
	if len(answer) > maxKept || o.kept+len(answer) > maxKeptAll {
		answer = answerLost
	}
	c.waiting, c.answer = nil, answer
	size := len(answer)
	o.kept += size
	time.AfterFunc(Timeout, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.kept -= size
		delete(o.calls, id)
	})
	return waiting
}

func (o *once) knows(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[id] != nil
}

var answerLost = encoded(refuse(http.StatusConflict, "conflict", "this was executed, and its answer was lost on the way; look at what it did before you do it again"))

// answer executes a call that has not expired, unless it was executed already.
func (f *Forwarder) answer(ctx context.Context, msg *nats.Msg) {
	var r Request
	if err := json.Unmarshal(msg.Data, &r); err != nil || r.ID == "" || r.Expires.IsZero() { // a Cloud API that is not updated yet sets neither
		f.respond(encoded(f.Forward(ctx, msg.Data)), msg)
		return
	}
	now, command := f.clock.now(), r.command()
	switch {
	case now.After(r.Expires):
		f.count(r, "expired")
		f.log.Warn("a call came too late and was not executed", "method", r.Method, "path", r.Path, "expired", r.Expires, "now", now)
		f.respond(encoded(refuse(http.StatusGatewayTimeout, "connector-unavailable",
			"the call was not executed: it was to be by %s, and reached the cell at %s by the cloud's clock", r.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))), msg)
		return
	case r.Repeated && command && r.Expires.Add(-Timeout).Before(f.since) && !f.once.knows(r.ID):
		f.count(r, "unknown")
		f.respond(encoded(refuse(http.StatusConflict, "conflict",
			"the cell's agent was started anew and can't know whether the one before it executed this; look whether it was done before you do it again")), msg)
		return
	}
	execute, answer := f.once.begin(r.ID, msg)
	if !execute {
		f.count(r, "repeated")
		if answer != nil {
			f.respond(answer, msg)
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.Expires.Sub(now))
	defer cancel()
	answer = encoded(f.Forward(ctx, msg.Data))
	f.respond(answer, f.once.end(r.ID, command, answer)...)
}

func (f *Forwarder) respond(answer []byte, to ...*nats.Msg) {
	for _, msg := range to {
		if err := msg.Respond(answer); err != nil {
			f.log.Warn("answer a call from the cloud", "error", err)
		}
	}
}

func encoded(r Response) []byte {
	r.Once = true
	data, err := json.Marshal(r)
	if err != nil {
		return []byte(`{"status":500}`)
	}
	return data
}
