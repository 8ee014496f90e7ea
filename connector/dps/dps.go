// SPDX-License-Identifier: Apache-2.0

// Package dps holds the Data Plane Signaling messages (v1.0-RC3) and the client with which a control plane directs a data plane.
// The data plane's side is connector/dataplane.
package dps

import "context"

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
	Claims       map[string]string `json:"claims,omitempty"` // e.g. purpose, from the agreement
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
