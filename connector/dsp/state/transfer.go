// SPDX-License-Identifier: Apache-2.0

package state

import "errors"

// Further steps of a transfer. RESUMED: the consumer's restart was acknowledged and the provider's new data address is still to come.
const (
	Starting   = "STARTING"
	Started    = "STARTED"
	Suspending = "SUSPENDING"
	Suspended  = "SUSPENDED"
	Resuming   = "RESUMING"
	Resumed    = "RESUMED"
	Completing = "COMPLETING"
	Completed  = "COMPLETED"
)

var (
	transferOpen = []string{Requesting, Requested, Starting, Started, Suspending, Suspended, Resuming, Resumed, Completing}

	flowSuspend   = Effect{EffectFlow, "suspend"}
	flowComplete  = Effect{EffectFlow, "complete"}
	flowTerminate = Effect{EffectFlow, "terminate"}
	dropAddress   = Effect{EffectDropAddress, ""}
	keepAddress   = []Effect{{EffectKeepAddress, ""}}
)

// Transfer is the transfer process (DSP 2025-1, transfer process §3). A provider's flow stops with its own decision to suspend or end,
// before the counterparty is told. Where a suspension and a completion cross, the completion wins on both sides.
var Transfer = &Machine{
	Name:  "transfer",
	final: []string{Completed, Terminated},
	Messages: map[Role]map[string]string{
		Consumer: {
			Requesting: "TransferRequestMessage", Resuming: "TransferStartMessage", Suspending: "TransferSuspensionMessage",
			Completing: "TransferCompletionMessage", Terminating: "TransferTerminationMessage",
		},
		Provider: {
			Starting: "TransferStartMessage", Resuming: "TransferStartMessage", Resumed: "TransferStartMessage",
			Suspending: "TransferSuspensionMessage", Completing: "TransferCompletionMessage", Terminating: "TransferTerminationMessage",
		},
	},
	guard: func(s State, e Event) error {
		if s.Role == Provider && s.Step == Suspended && e.On == ReceivedStart && s.SuspendedBy == Provider {
			return errors.New("the provider suspended it, so only the provider resumes it")
		}
		return nil
	},
	Table: []Transition{
		// Request and start.
		{Role: Consumer, From: []string{""}, On: CommandRequest, To: Requesting, Wire: Requested},
		{Role: Consumer, From: []string{Requesting}, On: Acknowledged, To: Requested},
		{Role: Provider, From: []string{""}, On: ReceivedRequest, To: Requested, Wire: Requested},
		{Role: Provider, From: []string{Requested}, On: CommandStart, To: Starting},
		{Role: Provider, From: []string{Starting, Resuming, Resumed}, On: Acknowledged, To: Started, Wire: Started},
		{Role: Consumer, From: []string{Requesting, Requested, Suspended, Resuming, Resumed}, On: ReceivedStart, To: Started, Wire: Started, Effects: keepAddress},
		// Suspend.
		{Role: Consumer, From: []string{Started, Resumed}, On: CommandSuspend, To: Suspending, Effects: []Effect{dropAddress}},
		{Role: Provider, From: []string{Started}, On: CommandSuspend, To: Suspending, Effects: []Effect{flowSuspend, dropAddress}},
		{From: []string{Suspending}, On: Acknowledged, To: Suspended, Wire: Suspended},
		{Role: Consumer, From: []string{Started, Suspending, Resumed}, On: ReceivedSuspension, To: Suspended, Wire: Suspended, Effects: []Effect{dropAddress}},
		{Role: Consumer, From: []string{Resuming}, On: ReceivedSuspension, To: Suspended, Wire: Suspended, Via: Started, Effects: []Effect{dropAddress}},
		{Role: Provider, From: []string{Started, Suspending, Resumed}, On: ReceivedSuspension, To: Suspended, Wire: Suspended, Effects: []Effect{flowSuspend, dropAddress}},
		{Role: Provider, From: []string{Starting, Resuming}, On: ReceivedSuspension, To: Suspended, Wire: Suspended, Via: Started, Effects: []Effect{flowSuspend, dropAddress}},
		// Resume: the consumer asks with a start of its own, the provider answers with a start that carries a new address.
		{From: []string{Suspended}, On: CommandResume, To: Resuming},
		{Role: Consumer, From: []string{Resuming}, On: Acknowledged, To: Resumed, Wire: Started},
		{Role: Provider, From: []string{Suspended}, On: ReceivedStart, To: Resumed, Wire: Started},
		{Role: Provider, From: []string{Resuming}, On: ReceivedStart, To: Resuming},
		{Role: Provider, From: []string{Resumed}, On: ReceivedStart, To: Resumed},
		// Complete.
		{Role: Consumer, From: []string{Started, Resumed}, On: CommandComplete, To: Completing, Effects: []Effect{dropAddress}},
		{Role: Provider, From: []string{Started}, On: CommandComplete, To: Completing, Effects: []Effect{flowComplete, dropAddress}},
		{From: []string{Completing}, On: Acknowledged, To: Completed, Wire: Completed},
		{Role: Consumer, From: []string{Started, Suspending, Completing, Resumed}, On: ReceivedCompletion, To: Completed, Wire: Completed, Effects: []Effect{dropAddress}},
		{Role: Consumer, From: []string{Resuming}, On: ReceivedCompletion, To: Completed, Wire: Completed, Via: Started, Effects: []Effect{dropAddress}},
		{Role: Provider, From: []string{Started, Suspending, Completing, Resumed}, On: ReceivedCompletion, To: Completed, Wire: Completed, Effects: []Effect{flowComplete, dropAddress}},
		{Role: Provider, From: []string{Starting, Resuming}, On: ReceivedCompletion, To: Completed, Wire: Completed, Via: Started, Effects: []Effect{flowComplete, dropAddress}},
		// Terminate.
		{Role: Consumer, From: without(transferOpen, Completing), On: CommandTerminate, To: Terminating, Effects: []Effect{dropAddress}},
		{Role: Provider, From: without(transferOpen, Completing), On: CommandTerminate, To: Terminating, Effects: []Effect{flowTerminate, dropAddress}},
		{Role: Consumer, From: []string{Requesting, Resuming, Suspending, Completing}, On: GaveUp, To: Terminating, Effects: []Effect{dropAddress}},
		{Role: Provider, From: []string{Starting, Resuming, Resumed, Suspending, Completing}, On: GaveUp, To: Terminating, Effects: []Effect{flowTerminate, dropAddress}},
		{From: []string{Terminating}, On: Acknowledged, To: Terminated, Wire: Terminated},
		{From: []string{Terminating}, On: GaveUp, To: Terminated, Wire: Terminated},
		{Role: Consumer, From: append([]string{Terminating}, transferOpen...), On: ReceivedTermination, To: Terminated, Wire: Terminated, Effects: []Effect{dropAddress}},
		{Role: Provider, From: append([]string{Terminating}, transferOpen...), On: ReceivedTermination, To: Terminated, Wire: Terminated, Effects: []Effect{flowTerminate, dropAddress}},
	},
}
