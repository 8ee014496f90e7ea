// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
	"time"
)

// Watch looks at heads as they are reported, one after the other, and finds chains that went back, were written anew or were replaced. The zero value
// has seen none.
type Watch struct {
	chains map[string]watched
	alarms []Alarm
}

type watched struct {
	Head
	first time.Time // seen
	moved bool
}

// Alarm is what is wrong with a chain, in words, and when that was seen.
type Alarm struct {
	Ctx  string
	At   time.Time
	What string
}

const maxAlarms = 100

// See takes a head that was reported at some time.
func (w *Watch) See(h Head, at time.Time) {
	before, known := w.chains[h.Chain]
	if w.chains == nil {
		w.chains = map[string]watched{}
	}
	now := watched{Head: h, first: at}
	if known {
		now.first = before.first
	}
	w.chains[h.Chain] = now
	what := ""
	switch {
	case !known:
	case h.Ctx != before.Ctx:
		what = fmt.Sprintf("chain %s was of %s, and is of %s", h.Chain, before.Ctx, h.Ctx)
	case h.Seq < before.Seq:
		what = fmt.Sprintf("chain %s of %s went back from record %d to %d", h.Chain, h.Ctx, before.Seq, h.Seq)
	case h.Seq == before.Seq && h.Hash != before.Hash:
		what = fmt.Sprintf("chain %s of %s was written anew: record %d has another hash than before", h.Chain, h.Ctx, h.Seq)
	case h.Open && !before.Open:
		what = fmt.Sprintf("chain %s of %s was closed, and is open again", h.Chain, h.Ctx)
	}
	if what != "" {
		w.alarms = append(w.alarms, Alarm{h.Ctx, at, what})
		w.alarms = w.alarms[max(0, len(w.alarms)-maxAlarms):]
	}
}

// Moved says that a chain goes on elsewhere, until it is seen again: its participant's name may be another's here.
func (w *Watch) Moved(chain string) {
	if c, ok := w.chains[chain]; ok {
		c.moved = true
		w.chains[chain] = c
	}
}

// Last is the head of a chain that was seen last; false when none was.
func (w *Watch) Last(chain string) (Head, bool) {
	c, ok := w.chains[chain]
	return c.Head, ok
}

// Alarms are those seen after a time, the oldest first. A participant that has two open chains counts: it can only have another once the one
// before is closed. In which order their heads came is not looked at.
func (w *Watch) Alarms(after time.Time) (out []Alarm) {
	for _, a := range w.alarms {
		if a.At.After(after) {
			out = append(out, a)
		}
	}
	newest := map[string]watched{}
	var open []watched
	for _, c := range w.chains {
		if c.Open && !c.moved {
			open = append(open, c)
		}
	}
	slices.SortFunc(open, func(a, b watched) int { return a.first.Compare(b.first) })
	for _, c := range open {
		if b, two := newest[c.Ctx]; two && c.first.After(after) {
			out = append(out, Alarm{c.Ctx, c.first, fmt.Sprintf("chain %s of %s with %d records was replaced by another, %s, though its participant was not deleted", b.Chain, c.Ctx, b.Seq, c.Chain)})
		}
		newest[c.Ctx] = c
	}
	slices.SortStableFunc(out, func(a, b Alarm) int { return a.At.Compare(b.At) })
	return out
}
