// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
)

// catalogVerdict is the body of the audit record of a catalog request that was refused, or answered without all offers.
type catalogVerdict struct {
	Phase        profile.Phase `json:"phase"`
	Profile      string        `json:"profile"`
	Counterparty string        `json:"counterparty"`
	Allowed      bool          `json:"allowed"`
	Reason       string        `json:"reason,omitempty"` // of a refusal
	Withheld     []withheld    `json:"withheld,omitempty"`
	More         int           `json:"more,omitempty"`    // withheld besides
	Omitted      int           `json:"omitted,omitempty"` // records that were too many
}

// withheld is an offer that was not shown.
type withheld struct {
	Definition string `json:"definition"`
	Policy     string `json:"policy"` // sha256 of the canonical policy
	Reason     string `json:"reason"`
}

func (v *catalogVerdict) withhold(definition, policy, reason string) {
	const most = 20
	if len(v.Withheld) == most {
		v.More++
		return
	}
	v.Withheld = append(v.Withheld, withheld{definition, policy, reason})
}

const (
	maxVerdicts     = 10_000 // counterparties remembered
	verdictsPerHour = 60     // of one participant
)

// catalogVerdicts remembers how each counterparty was answered last, since catalogs are polled: only what is new is recorded, and not more than so
// much, since whoever owns a domain has as many DIDs as it likes.
type catalogVerdicts struct {
	sync.Mutex
	last map[string]string // by participant, profile and counterparty
	hour map[string]*hourly
}

type hourly struct {
	since             time.Time
	recorded, omitted int
}

// news reports whether a verdict is to be recorded, and notes in it how many were not.
func (c *catalogVerdicts) news(participant string, v *catalogVerdict, now time.Time) bool {
	raw, err := json.Marshal(v)
	if err != nil {
		return false
	}
	key := participant + " " + v.Profile + " " + v.Counterparty
	whole := v.Allowed && len(v.Withheld) == 0
	c.Lock()
	defer c.Unlock()
	before, known := c.last[key]
	if before == string(raw) || !known && whole {
		return false
	}
	if c.last == nil || len(c.last) >= maxVerdicts {
		c.last = map[string]string{}
	}
	if c.hour == nil {
		c.hour = map[string]*hourly{}
	}
	c.last[key] = string(raw)
	h := c.hour[participant]
	switch {
	case h == nil:
		h = &hourly{since: now}
		c.hour[participant] = h
	case now.Sub(h.since) >= time.Hour:
		h.since, h.recorded = now, 0
	}
	if h.recorded == verdictsPerHour {
		h.omitted++
		return false
	}
	h.recorded++
	v.Omitted, h.omitted = h.omitted, 0
	return true
}

// forget forgets a participant, so that a later one of the same name begins with nothing.
func (c *catalogVerdicts) forget(participant string) {
	c.Lock()
	defer c.Unlock()
	delete(c.hour, participant)
	maps.DeleteFunc(c.last, func(key, _ string) bool { return strings.HasPrefix(key, participant+" ") })
}

// Forget drops what the engine remembers of a participant that was deleted.
func (e *Engine) Forget(participant string) { e.verdicts.forget(participant) }

// recordCatalog records how a catalog request was answered, if that is news. The answer does not depend on it: it holds no data.
func (e *Engine) recordCatalog(ctx context.Context, p *store.Participant, v catalogVerdict) {
	v.Phase, v.Profile = profile.PhaseCatalog, p.ProfileName
	if !e.verdicts.news(p.Ctx, &v, e.opt.Now()) {
		return
	}
	if err := e.opt.Store.Record(audit.WithActor(ctx, v.Counterparty), p.Ctx, audit.Entry{Type: audit.Policy, Body: v}); err != nil {
		e.opt.Log.WarnContext(ctx, "how a catalog request was answered could not be recorded", "participant", p.Ctx, "counterparty", v.Counterparty, "error", err)
	}
}
