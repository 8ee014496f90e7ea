// SPDX-License-Identifier: FSL-1.1-ALv2

// Package cellrpc carries calls from the cloud to a connector in a cell over the connection that the cell's agent opened itself
// (NATS request-reply in the cell's account), so that no cell needs an open port. The agent forwards to the connector's
// internal /api/{ctx}/v1, to what an issuer of the cell has issued, and to nothing else.
package cellrpc

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/kaphera/kaphera/connector/audit"
)

// Request is a call to a participant's view of its connector, or about what an issuer has issued.
type Request struct {
	Participant string          `json:"participant,omitempty"` // participant context id
	Issuer      string          `json:"issuer,omitempty"`      // name of the CredentialIssuer, in place of Participant
	Method      string          `json:"method"`
	Path        string          `json:"path"` // relative to /api/{ctx}/v1, with query, e.g. "/negotiations?limit=20"; of an issuer /credentials and what is below it
	Body        json.RawMessage `json:"body,omitempty"`
	// Actor is for whom the call is made, "user:<subject>" or "client:<client id>"; the connector's audit trail names it.
	Actor string `json:"actor,omitempty"`

	// ID names the call and Expires is when its caller has gone, by the cloud's clock: an agent executes a command once and nothing late. Repeated says
	// that it was sent before. A Caller sets them.
	ID       string    `json:"id,omitempty"`
	Expires  time.Time `json:"expires,omitzero"`
	Repeated bool      `json:"repeated,omitempty"`
}

// Response is its answer. Body is at most 512 KiB; larger bodies are answered 413 with the way to fetch them.
type Response struct {
	Status      int    `json:"status"`
	ContentType string `json:"contentType"`
	Body        []byte `json:"body"`
	// Once says that the agent knows Request.ID.
	Once bool `json:"once,omitempty"`
}

// ErrNotConnected is wrapped when no agent of the cell answers in time.
var ErrNotConnected = errors.New("cell not connected")

// Caller calls a cell.
type Caller interface {
	// Call executes a command at most once and returns the connector's answer, whatever its status; an error wraps ErrNotConnected or the context's.
	Call(ctx context.Context, cell string, r Request) (Response, error)
	// Heads returns the heads of a participant's audit chains that the cell reported, the oldest first. They are kept in the cloud.
	Heads(ctx context.Context, cell, participant string) ([]audit.Head, error)
}
