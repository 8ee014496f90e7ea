// SPDX-License-Identifier: Apache-2.0

package dps

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// Errors of the clients that a caller may want to tell apart.
var (
	// ErrRefused: the other side understood and refused; asking again is of no use.
	ErrRefused = errors.New("refused")
	// ErrUnavailable: the other side could not be reached or answered with a server error, after the retries.
	ErrUnavailable = errors.New("unavailable")
)

const (
	callTimeout = 10 * time.Second // of one attempt
	attempts    = 3
	maxAnswer   = 64 << 10
)

// Client directs a data plane over HTTP (signaling §7, on the internal port).
type Client struct {
	base  string
	token string
	http  *http.Client
	pause func(ctx context.Context, attempt int) error
}

// NewClient makes a client of the data plane whose internal address is base, such as http://shared-data-plane:8081. token is the
// data plane's internal bearer token.
func NewClient(base, token string) *Client {
	return &Client{base: strings.TrimSuffix(base, "/"), token: token, http: &http.Client{Timeout: callTimeout}, pause: pause}
}

// pause waits before the next attempt: 200 ms, then 800 ms.
func pause(ctx context.Context, attempt int) error {
	t := time.NewTimer(200 * time.Millisecond << (2 * attempt))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Start implements DataPlane.
func (c *Client) Start(ctx context.Context, flow Flow) (DataAddress, error) {
	var out StatusMessage
	if err := c.post(ctx, "/dataflows/start", StartMessage{MessageID: rand.Text(), DataspaceContext: Context, Flow: flow}, &out); err != nil {
		return DataAddress{}, fmt.Errorf("data plane: start data flow %s: %w", flow.FlowID, err)
	}
	for _, d := range flow.Demands {
		if !slices.Contains(out.Demands, d) {
			return DataAddress{}, fmt.Errorf("data plane: start data flow %s: %w: the agreement demands %s, which the data plane does not know", flow.FlowID, ErrRefused, d)
		}
	}
	if out.DataAddress == nil || out.State != StateStarted {
		return DataAddress{}, fmt.Errorf("data plane: start data flow %s: %w: it answered state %q without a data address", flow.FlowID, ErrRefused, out.State)
	}
	return DataAddress(*out.DataAddress), nil
}

// Suspend implements DataPlane.
func (c *Client) Suspend(ctx context.Context, flowID string) error {
	return c.control(ctx, flowID, "suspend")
}

// Terminate implements DataPlane.
func (c *Client) Terminate(ctx context.Context, flowID string) error {
	return c.control(ctx, flowID, "terminate")
}

// Complete implements DataPlane.
func (c *Client) Complete(ctx context.Context, flowID string) error {
	return c.control(ctx, flowID, "completed")
}

// Forget removes every flow of a participant context and with it its token.
func (c *Client) Forget(ctx context.Context, participantCtx string) error {
	if err := c.post(ctx, "/dataflows/contexts/"+url.PathEscape(participantCtx)+"/forget", ControlMessage{MessageID: rand.Text()}, nil); err != nil {
		return fmt.Errorf("data plane: remove the data flows of %s: %w", participantCtx, err)
	}
	return nil
}

func (c *Client) control(ctx context.Context, flowID, verb string) error {
	if err := c.post(ctx, "/dataflows/"+url.PathEscape(flowID)+"/"+verb, ControlMessage{MessageID: rand.Text()}, nil); err != nil {
		return fmt.Errorf("data plane: %s data flow %s: %w", verb, flowID, err)
	}
	return nil
}

// ControlPlane asks a control plane on behalf of a data plane.
type ControlPlane struct{ client *Client }

// NewControlPlane makes a client of the control plane whose internal address is base. token is the data plane's.
func NewControlPlane(base, token string) *ControlPlane { return &ControlPlane{NewClient(base, token)} }

// Access asks whether one access to a flow may be served. An error means that it must not.
func (c *ControlPlane) Access(ctx context.Context, participantCtx, flowID string, req AccessRequest) (AccessVerdict, error) {
	var out AccessVerdict
	if err := c.client.post(ctx, "/internal/v1/"+url.PathEscape(participantCtx)+"/transfers/"+url.PathEscape(flowID)+"/access", req, &out); err != nil {
		return AccessVerdict{}, fmt.Errorf("ask the control plane about an access to %s: %w", flowID, err)
	}
	return out, nil
}

// post sends one message; every call of this interface may be repeated.
func (c *Client) post(ctx context.Context, path string, msg, out any) error {
	body, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	for attempt := range attempts {
		if attempt > 0 {
			if err := c.pause(ctx, attempt-1); err != nil {
				return fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
		}
		if err = c.once(ctx, path, body, out); !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (c *Client) once(ctx context.Context, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("%w: read the answer of %s: %w", ErrUnavailable, path, err)
	case res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %s%s answered %s: %s", ErrUnavailable, c.base, path, res.Status, message(answer))
	case res.StatusCode >= 300:
		return fmt.Errorf("%w: %s: %s", ErrRefused, res.Status, message(answer))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%w: the answer of %s is not understood: %w", ErrRefused, path, err)
	}
	return nil
}

// message takes the sentence out of an error body.
func message(body []byte) string {
	var e adminapi.Error
	if json.Unmarshal(body, &e) == nil && e.Message != "" {
		return e.Message
	}
	return strings.TrimSpace(string(body[:min(len(body), 200)]))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
