// SPDX-License-Identifier: Apache-2.0

// Package interop lets this connector and Eclipse EDC 0.15.1, assembled from Maven Central by edc/pom.xml, negotiate and transfer with each
// other. Both are processes of their own, driven by the same client of the EDC Management API (package rig). `make interop` runs it.
//
// With EDC's mock identity, in both directions:
//
//	catalog in pages; negotiation; transfer with data
//	transfer suspended and resumed, completed, terminated: by the consumer, by the provider
//	negotiation terminated: by the consumer, by the provider
//	an unknown offer, a changed offer: refused
//
// With DCP, where EDC's credentials are in its IdentityHub and ours in our wallet, all from our issuer:
//
//	negotiation and transfer in both directions
//	EDC's attestation has expired, is too old, is revoked: refused by us as provider and as consumer
//	ours has expired, is too old, is revoked: refused by EDC as provider (as consumer it evaluates nothing)
//
// Both wallets withhold what has expired; wallets that present it all the same are in test/identity. What is revoked is presented: by
// IdentityHub always, since it reads no status list of StatusList2021, by ours until it looks at the list again.
//
// EDC 0.15.1 does not do negotiations that the provider begins with an offer: as consumer it stores the offer, loses the provider's process
// id and answers 500; as provider it has no call for it and sends the first offer to an address that no consumer has. It completes transfers,
// but not by its Management API: what its data plane would call does that here.
package interop
