// SPDX-License-Identifier: Apache-2.0

package dsp_test

import (
	"testing"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/state"
)

// BenchmarkNegotiation is the time from a request to FINALIZED on both sides, each with its own database, without the proof of identity.
func BenchmarkNegotiation(b *testing.B) {
	_, provider, consumer := world(b)
	offer := provider.offer("offer", `{"@type":"Set","permission":[{"action":"use"}]}`)
	for b.Loop() {
		n, err := consumer.engine.Negotiate(b.Context(), consumer.ctx, adminapi.NegotiationRequest{Counterparty: supplier, OfferID: offer})
		if err != nil {
			b.Fatal(err)
		}
		n = consumer.wait(n.ID, "FINALIZED", at(state.Finalized))
		provider.wait(provider.peer(n).ID, "FINALIZED", at(state.Finalized))
	}
}
