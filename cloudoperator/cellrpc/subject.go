// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc

import "time"

// Subject is where the agent of a cell answers, in the cell's own account.
const Subject = "rpc.call"

// StreamHeads keeps the heads of audit chains as they were reported, under SubjectHeads and the participant context. Only the cloud writes there, and
// nothing is removed but the oldest when it is full.
const (
	StreamHeads  = "AUDIT_HEADS"
	SubjectHeads = "audit.heads."
)

// Limits of a call. The agent gives up before the caller does, so that the caller hears why.
const (
	Timeout      = 30 * time.Second
	AgentTimeout = 25 * time.Second
	MaxBody      = 512 << 10

	repeatAfter = 10 * time.Second // of waiting for the answer
	clockEvery  = time.Minute
)
