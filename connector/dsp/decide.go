// SPDX-License-Identifier: Apache-2.0

package dsp

import (
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

// Decision is what the own side does next: a command, or nothing (Do empty), then with words for people on what it waits for.
// After asks again later instead.
type Decision struct {
	Do      state.Trigger
	Reason  *adminapi.Reason // of a termination
	Waiting string
	After   time.Duration
}

// Decider chooses among the legal commands whenever a process has come to rest at a step. It is called within the transaction that
// brought it there, so it must be quick and do no input or output; what it needs to know is in the row (Denial: the policy does not
// allow the next step). A command that is not legal is an error of the decider and is dropped with a log line.
type Decider interface {
	Negotiation(n *store.Negotiation) Decision
	Transfer(t *store.Transfer) Decision
}

// AtOnce is the product's Decider: whatever the policy allows is done at once, and what it does not allow is terminated with the reason. Terms that
// the counterparty brings are for a person to decide on (Accept, Counter).
type AtOnce struct{}

// Negotiation implements Decider.
func (AtOnce) Negotiation(n *store.Negotiation) Decision {
	if n.Role == state.Provider {
		switch n.Step {
		case state.Requested, state.Accepted:
			if ownTerms(n) {
				return Decision{Waiting: "a decision on the consumer's terms"}
			}
			return unlessDenied(&n.Process, state.CommandAgree)
		case state.Verified:
			return unlessDenied(&n.Process, state.CommandFinalize)
		case state.Offered:
			return Decision{Waiting: "the consumer's answer to the offer"}
		}
		return Decision{Waiting: "the consumer's verification of the agreement"}
	}
	switch n.Step {
	case state.Agreed:
		return unlessDenied(&n.Process, state.CommandVerify)
	case state.Offered:
		// An offer that says what was asked for is accepted; any other is for a person to decide.
		if sameOffer(n) {
			return unlessDenied(&n.Process, state.CommandAccept)
		}
		return Decision{Waiting: "a decision on the provider's offer"}
	case state.Requested, state.Accepted:
		return Decision{Waiting: "the provider's agreement"}
	}
	return Decision{Waiting: "the provider's finalization"}
}

// Transfer implements Decider.
func (AtOnce) Transfer(t *store.Transfer) Decision {
	switch {
	case t.Step == state.Requested && t.Role == state.Provider:
		return unlessDenied(&t.Process, state.CommandStart)
	case t.Step == state.Requested:
		return Decision{Waiting: "the provider's start"}
	case t.Step == state.Started && t.Denial != nil:
		return unlessDenied(&t.Process, "")
	case t.Step == state.Resumed:
		return Decision{Waiting: "the provider's new data address"}
	}
	return Decision{}
}

func unlessDenied(p *store.Process, command state.Trigger) Decision {
	if p.Denial != nil {
		return Decision{Do: state.CommandTerminate, Reason: p.Denial}
	}
	return Decision{Do: command}
}

// codeOfferChanged is the code of a denial for no other reason than that the terms are not those that are offered.
const codeOfferChanged = "offer-changed"

// ownTerms reports whether the consumer requests what it was not offered, and what the policy in it would allow.
func ownTerms(n *store.Negotiation) bool {
	return n.Step == state.Requested && n.Denial != nil && n.Denial.Code == codeOfferChanged
}

// Decides reports whether terms of the counterparty's wait for the own side: accept, counter, terminate.
func Decides(n *store.Negotiation) bool {
	return n.Role == state.Consumer && n.Step == state.Offered || n.Role == state.Provider && ownTerms(n)
}

// sameOffer reports whether the provider's offer says what this side requested.
func sameOffer(n *store.Negotiation) bool {
	if n.RequestedHash == "" {
		return false
	}
	p, err := odrl.Parse(n.Offer)
	return err == nil && odrl.Hash(p) == n.RequestedHash
}
