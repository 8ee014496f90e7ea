// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/dps"
)

// EndpointType of the addresses handed out, as EDC's consumers know it.
const EndpointType = "https://w3id.org/idsa/v4.1/HTTP"

// signaling serves Data Plane Signaling (v1.0-RC3 §7) as far as HTTP pull needs it, and one message of our own, which removes every flow of a
// participant context. The data flow's id is the transfer process id.
func (s *server) signaling() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern, name string, h func(r *http.Request) (dps.StatusMessage, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			status := http.StatusOK
			out, err := dps.StatusMessage{}, s.authorized(r)
			if err == nil {
				out, err = h(r)
			}
			if err != nil {
				status = s.writeError(w, r, err)
			} else {
				writeJSON(w, status, out)
			}
			s.metrics.signals.WithLabelValues(name, strconv.Itoa(status)).Inc()
		})
	}
	handle("POST /dataflows/start", "start", s.start)
	handle("POST /dataflows/{id}/resume", "resume", s.resume)
	handle("POST /dataflows/{id}/suspend", "suspend", s.move(dps.StateSuspended))
	handle("POST /dataflows/{id}/terminate", "terminate", s.move(dps.StateTerminated))
	handle("POST /dataflows/{id}/completed", "completed", s.move(dps.StateCompleted))
	handle("POST /dataflows/contexts/{ctx}/forget", "forget", func(r *http.Request) (dps.StatusMessage, error) {
		ended, err := s.flows.forget(r.Context(), r.PathValue("ctx"))
		for _, id := range ended {
			s.running.stop(id)
		}
		return dps.StatusMessage{}, err
	})
	handle("GET /dataflows/{id}/status", "status", func(r *http.Request) (dps.StatusMessage, error) {
		participantCtx, err := s.flows.contextOf(r.Context(), r.PathValue("id"))
		if err != nil {
			return dps.StatusMessage{}, err
		}
		f, err := s.flows.get(r.Context(), participantCtx, r.PathValue("id"))
		return dps.StatusMessage{DataFlowID: r.PathValue("id"), State: f.State}, err
	})
	return mux
}

func (s *server) authorized(r *http.Request) error {
	got := sha256.Sum256([]byte(bearer(r.Header.Get("Authorization"))))
	want := sha256.Sum256([]byte(s.InternalToken))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return refuse(http.StatusUnauthorized, "unauthorized", "the internal token is missing or wrong: it is the data plane's, which the control plane has from internal.dataPlaneTokenFile")
	}
	return nil
}

// bearer returns the token of an Authorization header, with or without the word Bearer.
func bearer(header string) string {
	if len(header) >= 7 && strings.EqualFold(header[:7], "bearer ") {
		return strings.TrimSpace(header[7:])
	}
	return strings.TrimSpace(header)
}

var (
	contextForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	flowForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:~-]{0,199}$`)
)

func (s *server) start(r *http.Request) (dps.StatusMessage, error) {
	var msg dps.StartMessage
	raw, err := io.ReadAll(r.Body) // bounded by package limits
	if err == nil {
		err = json.Unmarshal(raw, &msg)
	}
	if err != nil {
		return dps.StatusMessage{}, refuse(http.StatusBadRequest, "invalid", "the start message is not valid JSON: "+err.Error())
	}
	if err := checkStart(msg); err != nil {
		return dps.StatusMessage{}, err
	}
	for _, d := range msg.Demands {
		if d != dps.DemandRecord && (d != dps.DemandJudge || s.Judge == nil) { // every access is recorded, demanded or not
			return dps.StatusMessage{}, refuse(http.StatusBadRequest, "unsupported-demand", fmt.Sprintf("the agreement demands %q, which this data plane does not fulfil", d))
		}
	}
	if _, err := parseSource(msg.Source); err != nil {
		return dps.StatusMessage{}, refuse(http.StatusBadRequest, "invalid", fmt.Sprintf("asset %s: %v", msg.AssetID, err))
	}
	if err := CheckBackend(r.Context(), s.Backends, msg.Source); err != nil {
		s.Log.WarnContext(r.Context(), "backend refused", "context", msg.Context, "asset", msg.AssetID, "flow", msg.FlowID, "error", err)
		// The counterparty reads this too: not a word about the inside.
		return dps.StatusMessage{}, refuse(http.StatusBadRequest, "backend-refused",
			fmt.Sprintf("asset %s: its baseUrl is an address that the data plane does not read from; change it", msg.AssetID))
	}
	token, now := s.NewToken(), s.Now()
	if err := s.flows.start(r.Context(), msg.Flow, token, now.Add(s.TokenLifetime), now); err != nil {
		return dps.StatusMessage{}, err
	}
	return s.started(msg.Flow, token), nil
}

func checkStart(msg dps.StartMessage) error {
	var errs []error
	for _, f := range []struct{ name, value string }{{"messageId", msg.MessageID}, {"participantId", msg.Participant}, {"counterPartyId", msg.Counterparty},
		{"agreementId", msg.AgreementID}, {"datasetId", msg.AssetID}} {
		if f.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing", f.name))
		}
	}
	if !flowForm.MatchString(msg.FlowID) {
		errs = append(errs, fmt.Errorf("processId %q: use letters, digits and ._:~-", msg.FlowID))
	}
	if !contextForm.MatchString(msg.Context) {
		errs = append(errs, fmt.Errorf("participantContext %q: use lower-case letters, digits and dashes", msg.Context))
	}
	if msg.Format != dps.FormatHTTPPull {
		errs = append(errs, fmt.Errorf("profile %q is not served here: use %s", msg.Format, dps.FormatHTTPPull))
	}
	if err := errors.Join(errs...); err != nil {
		return refuse(http.StatusBadRequest, "invalid", "the start message is incomplete: "+strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}

func (s *server) resume(r *http.Request) (dps.StatusMessage, error) {
	token, now := s.NewToken(), s.Now()
	f, err := s.flows.restart(r.Context(), r.PathValue("id"), token, now.Add(s.TokenLifetime), now)
	if err != nil {
		return dps.StatusMessage{}, err
	}
	return s.started(f.Flow, token), nil
}

func (s *server) started(f dps.Flow, token string) dps.StatusMessage {
	return dps.StatusMessage{DataFlowID: f.FlowID, State: dps.StateStarted, Demands: f.Demands, DataAddress: &dps.WireAddress{
		EndpointType: EndpointType,
		Endpoint:     dcp.Base(f.Participant, s.PublicURL, f.Context) + "/" + f.Context + "/data/" + url.PathEscape(f.FlowID),
		Properties: map[string]string{"authType": "bearer", "authorization": token,
			"expiresIn": strconv.Itoa(int(s.TokenLifetime.Seconds()))},
	}}
}

func (s *server) move(to string) func(r *http.Request) (dps.StatusMessage, error) {
	return func(r *http.Request) (dps.StatusMessage, error) {
		state, err := s.flows.move(r.Context(), r.PathValue("id"), to, s.Now())
		if err == nil {
			s.running.stop(r.PathValue("id"))
		}
		return dps.StatusMessage{DataFlowID: r.PathValue("id"), State: state}, err
	}
}
