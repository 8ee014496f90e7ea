// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"sync"
	"time"

	"github.com/kaphera/kaphera/connector/audit"
)

const (
	groupSize = 128
	// linger is how long an outcome waits for an intent whose transaction it can share.
	linger = 20 * time.Millisecond
)

// entry is a record of an access on its way into a participant's chain.
type entry struct {
	audit.Entry
	outcome                 // of an intent: the names
	asked   context.Context // of who waits for an intent, and may go
	answer  chan error      // takes one, of an intent; nil for an outcome, for which nobody waits
}

// journal commits records in groups. Transactions that append to one participant's chain wait for each other anyhow, so there is one at a time, and
// what comes in meanwhile shares the next. An intent that finds none under way waits for nothing.
type journal struct {
	// commit records a group in one transaction, or nothing of it, answers its intents, and returns the outcomes that are to be tried again.
	commit func(participant string, group []*entry) []*entry

	mu     sync.Mutex
	queues map[string]*queue   // by participant: those with something to record
	late   map[string][]*entry // by participant: outcomes that could not be recorded
	empty  sync.Cond           // no queue is left
	closed chan struct{}       // from then on nothing lingers
}

type queue struct {
	entries []*entry
	due     chan struct{} // holds one
}

func newJournal(commit func(string, []*entry) []*entry) *journal {
	j := &journal{commit: commit, queues: map[string]*queue{}, late: map[string][]*entry{}, closed: make(chan struct{})}
	j.empty.L = &j.mu
	return j
}

func (j *journal) add(participant string, e *entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.queue(participant, e)
}

func (j *journal) queue(participant string, e *entry) {
	q := j.queues[participant]
	if q == nil {
		q = &queue{due: make(chan struct{}, 1)}
		j.queues[participant] = q
		go j.run(participant, q)
	}
	q.entries = append(q.entries, e)
	if e.answer != nil || len(q.entries) >= groupSize {
		q.wake()
	}
}

func (q *queue) wake() {
	select {
	case q.due <- struct{}{}:
	default:
	}
}

// run commits what is in a queue until there is nothing left.
func (j *journal) run(participant string, q *queue) {
	for {
		select {
		case <-q.due:
		case <-time.After(linger):
		case <-j.closed:
		}
		group := j.take(participant, q)
		if group == nil {
			return
		}
		if late := j.commit(participant, group); len(late) > 0 {
			j.mu.Lock()
			j.late[participant] = append(j.late[participant], late...)
			j.mu.Unlock()
		}
	}
}

// take takes the next group out of a queue. One that is empty is forgotten.
func (j *journal) take(participant string, q *queue) []*entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := min(len(q.entries), groupSize)
	group := q.entries[:n:n]
	if q.entries = q.entries[n:]; len(q.entries) > 0 {
		q.wake()
	}
	if n == 0 {
		if delete(j.queues, participant); len(j.queues) == 0 {
			j.empty.Broadcast()
		}
		return nil
	}
	return group
}

// again tries the outcomes that could not be recorded before.
func (j *journal) again() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for participant, late := range j.late {
		for _, e := range late {
			j.queue(participant, e)
		}
	}
	clear(j.late)
}

// close commits what is left. Nothing lingers from then on.
func (j *journal) close() {
	j.again()
	j.mu.Lock()
	defer j.mu.Unlock()
	select {
	case <-j.closed:
	default:
		close(j.closed)
	}
	for len(j.queues) > 0 {
		j.empty.Wait()
	}
}
