// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/store"
)

// idlePoll is how often workers look for rows that another process made due.
const idlePoll = time.Second

func (e *Engine) jitter(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return rand.Int64N(n) // #nosec G404 -- spreads retries, guards nothing
}

// Run leases due rows and works on them until ctx ends; then it waits for what is under way.
func (e *Engine) Run(ctx context.Context) error {
	free := make(chan struct{}, e.opt.Workers)
	for range e.opt.Workers {
		free <- struct{}{}
	}
	var busy sync.WaitGroup
	defer busy.Wait()
	// Work under way may finish after ctx has ended; each of its calls has a time-out of its own.
	work := context.WithoutCancel(ctx)
	start := func(participant string, do func()) {
		busy.Go(func() {
			defer func() { free <- struct{}{}; e.Wake() }()
			leave, err := e.sending.Enter(work, participant) // a lease gives no more than there are places, but two at once may
			if err != nil {
				return // the lease runs out
			}
			defer leave()
			do()
		})
	}
	busy.Go(func() { e.prune(ctx) })
	busy.Go(func() { e.askForHeads(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-free:
		}
		n := 1
		for range len(free) {
			<-free
			n++
		}
		took, err := e.lease(ctx, work, n, start)
		for range n - took {
			free <- struct{}{}
		}
		if err != nil && ctx.Err() == nil {
			e.opt.Log.Error("looking for due work failed", "error", err)
		}
		if took > 0 && took < n && err == nil {
			continue
		}
		if err := e.rest(ctx, took, err != nil); err != nil {
			return nil // ctx has ended, which is how Run ends
		}
	}
}

// remember is how long the ids of received messages are kept.
const remember = 30 * 24 * time.Hour

// prune forgets old message ids, every hour until ctx ends.
func (e *Engine) prune(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := e.opt.Store.Prune(ctx, remember); err != nil && ctx.Err() == nil {
				e.opt.Log.Warn("old message ids could not be removed", "error", err)
			}
		}
	}
}

// lease takes up to n due rows, starts work on each, and returns how many.
func (e *Engine) lease(ctx, work context.Context, n int, start func(string, func())) (took int, err error) {
	places := store.Places{PerParticipant: e.opt.PerParticipant, PerCounterparty: max(1, e.opt.Workers/4)}
	negotiations, err := e.opt.Store.LeaseNegotiations(ctx, n, places)
	if err != nil {
		return 0, err
	}
	for _, row := range negotiations {
		start(row.Ctx, func() { e.negotiations.work(work, row) })
	}
	if took = len(negotiations); took == n {
		return took, nil
	}
	transfers, err := e.opt.Store.LeaseTransfers(ctx, n-took, places)
	if err != nil {
		return took, err
	}
	for _, row := range transfers {
		start(row.Ctx, func() { e.transfers.work(work, row) })
	}
	return took + len(transfers), nil
}

// blockedPoll is how often workers look for more while all that is due waits for places, which those of this process leave with a wake.
const blockedPoll = 100 * time.Millisecond

// rest waits until something may be due.
func (e *Engine) rest(ctx context.Context, took int, failed bool) error {
	wait := idlePoll
	if !failed {
		switch d, err := e.opt.Store.NextDue(ctx, idlePoll); {
		case err != nil:
		case d == 0 && took == 0:
			e.sending.Blocked()
			wait = blockedPoll
		default:
			wait = max(d, 5*time.Millisecond)
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-e.wake:
	case <-t.C:
	}
	return nil
}

// tellFlow tells the data plane what became of a flow, if something did; until it took it, nothing else is done.
func (e *Engine) tellFlow(ctx context.Context, t *store.Transfer) (*store.Transfer, error) {
	if t.Flow == "" {
		return nil, nil
	}
	tell := map[string]func(context.Context, string) error{"suspend": e.opt.DataPlane.Suspend, "complete": e.opt.DataPlane.Complete, "terminate": e.opt.DataPlane.Terminate}
	err := tell[t.Flow](ctx, t.ID)
	if errors.Is(err, dps.ErrRefused) {
		e.opt.Log.Warn("the data plane refused a signal", "participant", t.Ctx, "transfer", t.ID, "signal", t.Flow, "error", err)
		err = nil // it does not have the flow, so nothing is served
	}
	return e.opt.Store.UpdateTransfer(ctx, t.Ctx, t.ID, "", func(row *store.Transfer, _ bool) (store.Side, error) {
		defer settle(&row.Process)
		switch {
		case row.Flow != t.Flow: // a later signal replaced it
		case err != nil:
			row.Attempts++
			row.LastError = err.Error()
			row.Next = &store.Next{After: e.backoff(row.Attempts)}
		default:
			row.Flow, row.Attempts = "", 0
			row.Next = &store.Next{Never: state.Transfer.Sends(machineState(&row.Process, false, "")) == ""}
		}
		return store.Side{}, nil
	})
}

// attempt builds and sends the message under way.
func (e *Engine) attempt(ctx context.Context, p *store.Participant, row *store.Process, build func() (*outgoing, error)) outcome {
	out, err := build()
	switch {
	case errors.Is(err, dps.ErrRefused):
		return outcome{err: err, final: &adminapi.Reason{Code: "data-plane-refused", By: "own", Message: err.Error()}}
	case err != nil:
		return outcome{err: err}
	}
	return e.deliver(ctx, p, row, out)
}

// judgeOutcome says which event an attempt to send amounts to, or schedules the next attempt (done false). The last message of a process is
// never given up: the counterparty may have taken it, and then both would disagree for ever.
func (e *Engine) judgeOutcome(row *store.Process, o outcome, last bool) (on state.Trigger, reason *adminapi.Reason, done bool) {
	switch {
	case row.Step == state.Terminating && row.CounterpartyPID == "":
		return state.GaveUp, nil, true // nobody to tell
	case o.acknowledged:
		return state.Acknowledged, nil, true
	case o.final != nil:
		return state.GaveUp, o.final, true
	case o.err == nil: // nothing was sent
		row.Next = &store.Next{}
		return "", nil, false
	}
	row.Attempts++
	row.LastError = cut(o.err.Error(), 1000)
	if row.SendUntil != nil && e.opt.Now().After(*row.SendUntil) && !last {
		return state.GaveUp, &adminapi.Reason{Code: "counterparty-unreachable", By: "own",
			Message: fmt.Sprintf("%s could not be reached in %d attempts: %s", row.Counterparty, row.Attempts, row.LastError)}, true
	}
	row.Waiting = fmt.Sprintf("%s to be reachable: %s", row.Counterparty, row.LastError)
	row.Next = &store.Next{After: e.backoff(row.Attempts)}
	e.opt.Log.Info("a message is tried again", "participant", row.Ctx, "process", row.ID, "step", row.Step, "attempts", row.Attempts, "error", row.LastError)
	return "", nil, false
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// learn fills in the counterparty's process id when it became known only now.
func learn(row *store.Process, pid string) {
	if row.CounterpartyPID == "" && pid != "" {
		row.CounterpartyPID = pid
	}
}

// settle keeps the lease when there is more to do at once, else ends it.
func settle(row *store.Process) {
	row.Keep = row.Next != nil && !row.Next.Never && row.Next.After == 0
	row.Release = !row.Keep
}
