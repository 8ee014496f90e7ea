// SPDX-License-Identifier: Apache-2.0

// Package dps holds the Data Plane Signaling messages (v1.0-RC3) and the client with which a control plane directs a data plane.
// The data plane's side is connector/dataplane.
package dps

import (
	"context"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// DataAddress is a DSP/DPS data address in its plain form: endpointProperties as a map.
type DataAddress struct {
	EndpointType string            `json:"endpointType"`
	Endpoint     string            `json:"endpoint,omitempty"`
	Properties   map[string]string `json:"properties,omitempty"`
}

// Flow is what a data plane needs to know of a transfer. FlowID is the transfer process id on the side that calls.
type Flow struct {
	FlowID       string            `json:"processId"`
	Context      string            `json:"participantContext"`
	Participant  string            `json:"participantId"` // own DID
	Counterparty string            `json:"counterPartyId"`
	AgreementID  string            `json:"agreementId"`
	AssetID      string            `json:"datasetId"`
	Format       string            `json:"profile"`          // HttpData-PULL
	Source       map[string]string `json:"source,omitempty"` // provider: the asset's data address
	Claims       map[string]string `json:"claims,omitempty"`
	// Purposes of use that the agreement allows, and with it the flow's token; empty when it limits none.
	Purposes []string `json:"purposes,omitempty"`
	// Demands are what the agreement's policy demands of a data plane: one that does not fulfil all of them must not start the flow.
	Demands []string `json:"demands,omitempty"`
}

// Demands of a policy. A data plane answers the start of a flow with those that it fulfils, so that one that does not know them is found out.
const (
	DemandJudge  = "judge-access"  // the control plane is asked before each access, and no answer is a denial
	DemandRecord = "record-access" // each access is recorded, or refused
)

// AccessRequest asks the control plane whether one access may be served: POST /internal/v1/{ctx}/transfers/{id}/access.
type AccessRequest struct {
	AgreementID string   `json:"agreementId"`
	Purposes    []string `json:"purposes,omitempty"` // of the flow
	Method      string   `json:"method"`
	Path        string   `json:"path,omitempty"` // beneath the asset's address
}

// AccessVerdict answers it. Reason is for the consumer.
type AccessVerdict struct {
	Allowed bool           `json:"allowed"`
	Reason  string         `json:"reason,omitempty"`
	Trace   adminapi.Trace `json:"trace"`
}

// DataPlane is the control plane's view of a data plane. All calls are idempotent by FlowID.
type DataPlane interface {
	// Start begins serving a flow and returns the address with its token (provider, pull).
	Start(ctx context.Context, flow Flow) (DataAddress, error)
	// Suspend revokes the token; Start again issues a new one.
	Suspend(ctx context.Context, flowID string) error
	// Terminate and Complete end the flow; its token is dead once they return.
	Terminate(ctx context.Context, flowID string) error
	Complete(ctx context.Context, flowID string) error
}
