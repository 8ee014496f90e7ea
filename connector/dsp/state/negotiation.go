// SPDX-License-Identifier: Apache-2.0

package state

// Steps of a negotiation, named as in the EDC Management API. Those that end in -ING have an own message under way; the others but
// INITIAL are also the protocol's states (DSP 2025-1, contract negotiation §3).
const (
	Requesting  = "REQUESTING"
	Requested   = "REQUESTED"
	Offering    = "OFFERING"
	Offered     = "OFFERED"
	Accepting   = "ACCEPTING"
	Accepted    = "ACCEPTED"
	Agreeing    = "AGREEING"
	Agreed      = "AGREED"
	Verifying   = "VERIFYING"
	Verified    = "VERIFIED"
	Finalizing  = "FINALIZING"
	Finalized   = "FINALIZED"
	Terminating = "TERMINATING"
	Terminated  = "TERMINATED"
)

var (
	negotiationSending = []string{Requesting, Offering, Accepting, Agreeing, Verifying, Finalizing}
	negotiationOpen    = append([]string{Requested, Offered, Accepted, Agreed, Verified}, negotiationSending...)
	keepAgreement      = []Effect{{EffectKeepAgreement, ""}}
)

// Negotiation is the contract negotiation. A side moves on the counterparty's 2xx; a reply that overtakes it counts as one (Via). What a
// counterparty says again, because it forgot that it had (Eclipse EDC does when a reply overtakes its own record), leaves the step.
// A side that is terminating takes nothing but the counterparty's termination, and one that is sending the last message does not
// terminate any more, so both end alike when messages cross.
var Negotiation = &Machine{
	Name:  "negotiation",
	final: []string{Finalized, Terminated},
	Messages: map[Role]map[string]string{
		Consumer: {
			Requesting: "ContractRequestMessage", Accepting: "ContractNegotiationEventMessage",
			Verifying: "ContractAgreementVerificationMessage", Terminating: "ContractNegotiationTerminationMessage",
		},
		Provider: {
			Offering: "ContractOfferMessage", Agreeing: "ContractAgreementMessage",
			Finalizing: "ContractNegotiationEventMessage", Terminating: "ContractNegotiationTerminationMessage",
		},
	},
	Table: []Transition{
		// Consumer.
		{Role: Consumer, From: []string{""}, On: CommandRequest, To: Requesting, Wire: Requested},
		{Role: Consumer, From: []string{Offered}, On: CommandCounterRequest, To: Requesting},
		{Role: Consumer, From: []string{Requesting}, On: Acknowledged, To: Requested, Wire: Requested},
		{Role: Consumer, From: []string{"", Requested}, On: ReceivedOffer, To: Offered, Wire: Offered},
		{Role: Consumer, From: []string{Requesting}, On: ReceivedOffer, To: Offered, Wire: Offered, Via: Requested},
		{Role: Consumer, From: []string{Offered}, On: CommandAccept, To: Accepting},
		{Role: Consumer, From: []string{Accepting}, On: Acknowledged, To: Accepted, Wire: Accepted},
		{Role: Consumer, From: []string{Requested, Accepted}, On: ReceivedAgreement, To: Agreed, Wire: Agreed, Effects: keepAgreement},
		{Role: Consumer, From: []string{Requesting}, On: ReceivedAgreement, To: Agreed, Wire: Agreed, Via: Requested, Effects: keepAgreement},
		{Role: Consumer, From: []string{Accepting}, On: ReceivedAgreement, To: Agreed, Wire: Agreed, Via: Accepted, Effects: keepAgreement},
		{Role: Consumer, From: []string{Agreed}, On: ReceivedAgreement, To: Agreed, Effects: keepAgreement},
		{Role: Consumer, From: []string{Agreed}, On: CommandVerify, To: Verifying},
		{Role: Consumer, From: []string{Verifying}, On: ReceivedAgreement, To: Verifying, Effects: keepAgreement},
		{Role: Consumer, From: []string{Verifying}, On: Acknowledged, To: Verified, Wire: Verified},
		{Role: Consumer, From: []string{Verified}, On: ReceivedFinalized, To: Finalized, Wire: Finalized},
		{Role: Consumer, From: []string{Verifying}, On: ReceivedFinalized, To: Finalized, Wire: Finalized, Via: Verified},
		{Role: Consumer, From: []string{Finalized}, On: ReceivedFinalized, To: Finalized},
		// Provider.
		{Role: Provider, From: []string{""}, On: ReceivedRequest, To: Requested, Wire: Requested},
		{Role: Provider, From: []string{Offered}, On: ReceivedCounterRequest, To: Requested, Wire: Requested},
		{Role: Provider, From: []string{Offering}, On: ReceivedCounterRequest, To: Requested, Wire: Requested, Via: Offered},
		{Role: Provider, From: []string{""}, On: CommandOffer, To: Offering, Wire: Offered},
		{Role: Provider, From: []string{Requested}, On: CommandOffer, To: Offering},
		{Role: Provider, From: []string{Offering}, On: Acknowledged, To: Offered, Wire: Offered},
		{Role: Provider, From: []string{Offered}, On: ReceivedAccepted, To: Accepted, Wire: Accepted},
		{Role: Provider, From: []string{Offering}, On: ReceivedAccepted, To: Accepted, Wire: Accepted, Via: Offered},
		{Role: Provider, From: []string{Requested, Accepted}, On: CommandAgree, To: Agreeing, Effects: keepAgreement},
		{Role: Provider, From: []string{Agreeing}, On: Acknowledged, To: Agreed, Wire: Agreed},
		{Role: Provider, From: []string{Agreed}, On: ReceivedVerification, To: Verified, Wire: Verified},
		{Role: Provider, From: []string{Agreeing}, On: ReceivedVerification, To: Verified, Wire: Verified, Via: Agreed},
		{Role: Provider, From: []string{Verified}, On: ReceivedVerification, To: Verified},
		{Role: Provider, From: []string{Verified}, On: CommandFinalize, To: Finalizing},
		{Role: Provider, From: []string{Finalizing}, On: ReceivedVerification, To: Finalizing},
		{Role: Provider, From: []string{Finalizing}, On: Acknowledged, To: Finalized, Wire: Finalized},
		// Both.
		{From: without(negotiationOpen, Finalizing), On: CommandTerminate, To: Terminating},
		{From: negotiationSending, On: GaveUp, To: Terminating},
		{From: []string{Terminating}, On: Acknowledged, To: Terminated, Wire: Terminated},
		{From: []string{Terminating}, On: GaveUp, To: Terminated, Wire: Terminated},
		{From: append([]string{Terminating}, negotiationOpen...), On: ReceivedTermination, To: Terminated, Wire: Terminated},
	},
}
