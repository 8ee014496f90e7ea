// SPDX-License-Identifier: Apache-2.0

package dps

import (
	"encoding/json"
	"fmt"
)

// States of a data flow (signaling §7).
const (
	StateStarted    = "STARTED"
	StateSuspended  = "SUSPENDED"
	StateCompleted  = "COMPLETED"
	StateTerminated = "TERMINATED"
)

// Context is the value of dataspaceContext: the protocol whose transfer the flow belongs to.
const Context = "dataspace-protocol-http:2025-1"

// FormatHTTPPull is the transfer format of a flow that the consumer fetches by HTTP.
const FormatHTTPPull = "HttpData-PULL"

// StartMessage is DataFlowStartMessage: POST /dataflows/start. Source is this implementation's way to tell the data plane where the
// asset lives; the message of a pull transfer has no dataAddress.
type StartMessage struct {
	MessageID        string `json:"messageId"`
	DataspaceContext string `json:"dataspaceContext"`
	Flow
}

// ControlMessage is the body of POST /dataflows/{id}/suspend, /terminate and /completed.
type ControlMessage struct {
	MessageID string `json:"messageId"`
	Reason    string `json:"reason,omitempty"`
}

// StatusMessage is DataFlowStatusMessage.
type StatusMessage struct {
	MessageID   string       `json:"messageId,omitempty"`
	DataFlowID  string       `json:"dataFlowId"`
	State       string       `json:"state"`
	DataAddress *WireAddress `json:"dataAddress,omitempty"`
	Error       string       `json:"error,omitempty"`
	Demands     []string     `json:"demands,omitempty"` // of the flow, that the data plane fulfils
}

// WireAddress is a DataAddress as DSP and DPS write it (DSP 2025-1 §5.4): properties as a list.
type WireAddress DataAddress

type wireAddress struct {
	Type         string         `json:"@type"`
	EndpointType string         `json:"endpointType"`
	Endpoint     string         `json:"endpoint,omitempty"`
	Properties   []wireProperty `json:"endpointProperties,omitempty"`
}

type wireProperty struct {
	Type  string `json:"@type"`
	Name  string `json:"name"`
	Value string `json:"value"`
}

// MarshalJSON writes the properties sorted by name.
func (a WireAddress) MarshalJSON() ([]byte, error) {
	w := wireAddress{Type: "DataAddress", EndpointType: a.EndpointType, Endpoint: a.Endpoint}
	for _, k := range sortedKeys(a.Properties) {
		w.Properties = append(w.Properties, wireProperty{"EndpointProperty", k, a.Properties[k]})
	}
	return json.Marshal(w)
}

// UnmarshalJSON refuses an address without endpointType and a property that is named twice.
func (a *WireAddress) UnmarshalJSON(raw []byte) error {
	var w wireAddress
	if err := json.Unmarshal(raw, &w); err != nil {
		return fmt.Errorf("data address: %w", err)
	}
	if w.EndpointType == "" {
		return fmt.Errorf("data address: endpointType is missing")
	}
	*a = WireAddress{EndpointType: w.EndpointType, Endpoint: w.Endpoint, Properties: map[string]string{}}
	for i, p := range w.Properties {
		if _, dup := a.Properties[p.Name]; dup || p.Name == "" {
			return fmt.Errorf("data address: endpointProperties[%d]: the name %q is empty or there twice", i, p.Name)
		}
		a.Properties[p.Name] = p.Value
	}
	return nil
}
