// SPDX-License-Identifier: Apache-2.0

package participantcontext

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

const (
	firstPause = 2 * time.Second
	maxPause   = 5 * time.Minute
)

// paceKey is one wish of one object; another generation of it starts afresh.
type paceKey struct {
	uid          types.UID
	generation   int64
	kind, issuer string
}

// pacer spaces repeated requests out, so that an issuer that says no is not asked at every poll.
type pacer struct {
	now  func() time.Time
	mu   sync.Mutex
	next map[paceKey]pause
}

type pause struct {
	until  time.Time
	length time.Duration
}

func newPacer(now func() time.Time) *pacer { return &pacer{now: now, next: map[paceKey]pause{}} }

// due reports whether k may be asked for now, and if so makes the next time later.
func (p *pacer) due(k paceKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, known := p.next[k]
	if known && p.now().Before(was.until) {
		return false
	}
	length := firstPause
	if known {
		length = min(2*was.length, maxPause)
	}
	p.next[k] = pause{until: p.now().Add(length), length: length}
	return true
}

// forget drops everything of an object.
func (p *pacer) forget(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.next {
		if k.uid == uid {
			delete(p.next, k)
		}
	}
}
