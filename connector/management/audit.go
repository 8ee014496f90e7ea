// SPDX-License-Identifier: Apache-2.0

package management

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

// acting says in the context of a request who makes it: the person or client that a cell's agent names, or else whoever has the internal token.
func acting(r *http.Request) *http.Request {
	return r.WithContext(audit.WithActor(r.Context(), cmp.Or(r.Header.Get(adminapi.ActorHeader), "client:internal")))
}

// action is the body of the audit record of a change that somebody made through an API.
type action struct {
	Do     string `json:"do"`               // method and path below the participant
	SHA256 string `json:"sha256,omitempty"` // of the request's body; never of a secret
}

// Recorded makes the first transaction that a writing request commits record the request. It reads the body, which it leaves to be read again.
func Recorded(w http.ResponseWriter, r *http.Request, participant, path string, secret bool) (*http.Request, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(raw))
	a := action{Do: r.Method + " " + path}
	if len(raw) > 0 && !secret {
		sum := sha256.Sum256(raw)
		a.SHA256 = hex.EncodeToString(sum[:])
	}
	return r.WithContext(store.Recording(r.Context(), participant, audit.Entry{Type: audit.Management, Body: a})), nil
}

const (
	maxRecords = 1000
	// maxExport keeps an answer small enough for the way through a cell's agent, in bytes.
	maxExport = 384 << 10
)

// auditTrail answers a part of the participant's chain as lines of an export, the head last: the records after a number, or the last ones.
func (s *server) auditTrail(w http.ResponseWriter, r *http.Request) {
	p, err := s.participant(r)
	if err == nil {
		err = s.writeTrail(w, r, p)
	}
	if err != nil {
		s.fail(w, r, err)
	}
}

func (s *server) writeTrail(w http.ResponseWriter, r *http.Request, p *store.Participant) error {
	var after, last, limit int64 = 0, 0, maxRecords
	for name, v := range map[string]*int64{"after": &after, "last": &last, "limit": &limit} {
		if q := r.URL.Query().Get(name); q != "" {
			n, err := strconv.ParseInt(q, 10, 64)
			if err != nil || n < 0 {
				return invalid("%s=%q: a number from 0", name, q)
			}
			*v = n
		}
	}
	h, err := s.Store.AuditHead(r.Context(), p.Ctx)
	if err != nil {
		return describe(err, "audit trail of participant context", p.Ctx)
	}
	if last > 0 {
		after = max(after, h.Seq-last)
	}
	records, err := s.Store.AuditRecords(r.Context(), h, after, int(min(limit, maxRecords)))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, rec := range records {
		if !s.mayLeave(r, rec.Type) {
			rec.Withhold()
		}
		before := out.Len()
		if err := audit.WriteRecord(&out, rec); err != nil {
			return err
		}
		if out.Len() > maxExport && before > 0 {
			out.Truncate(before)
			break
		}
	}
	if err := audit.WriteHead(&out, h); err != nil {
		return err
	}
	w.Header().Set("Content-Type", audit.MediaType)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = out.WriteTo(w) // the caller may be gone
	return nil
}

// mayLeave says whether the caller may read the bodies of records of a type: whoever is in the cell reads all.
func (s *server) mayLeave(r *http.Request, typ string) bool {
	return r.Header.Get(adminapi.ActorHeader) == "" || slices.Contains(s.AuditLeaving, typ)
}

// leaving is an answer without what the caller may not read of policy records either: what was seen of other parties. A summary has it for nobody, since
// the operator writes it into a status, which leaves.
func (s *server) leaving(r *http.Request, p *store.Participant, answer any) any {
	if v, ok := answer.(adminapi.Summary); ok {
		if last := v.LastFailure; last != nil {
			withhold(p.DID, &last.Reason, &last.Traces)
		}
		return v
	}
	if s.mayLeave(r, audit.Policy) {
		return answer
	}
	switch v := answer.(type) {
	case adminapi.Negotiation:
		withhold(p.DID, &v.Reason, &v.Traces)
		return v
	case adminapi.Transfer:
		withhold(p.DID, &v.Reason, &v.Traces)
		return v
	case []adminapi.Negotiation:
		for i := range v {
			withhold(p.DID, &v[i].Reason, &v[i].Traces)
		}
	case []adminapi.Transfer:
		for i := range v {
			withhold(p.DID, &v[i].Reason, &v[i].Traces)
		}
	}
	return answer
}

// withhold is odrl.Withhold for all traces of a process, and for the own denial that was made of them.
func withhold(own string, reason **adminapi.Reason, traces *[]adminapi.Trace) {
	var out []adminapi.Trace
	denial := "the policy is not met"
	for _, t := range *traces {
		t = odrl.Withhold(t, own)
		out, denial = append(out, t), cmp.Or(odrl.Reason(t, ""), denial)
	}
	*traces = out
	if r := *reason; r != nil && r.By == "own" && r.Code == "policy-denied" {
		*reason = &adminapi.Reason{Code: r.Code, Message: denial, By: r.By}
	}
}

// auditHeads answers the heads of all chains, also of participants that were deleted.
func (s *server) auditHeads(r *http.Request) (any, error) {
	heads, err := s.Store.AuditHeads(r.Context())
	return append([]audit.Head{}, heads...), err
}

// below is the path of a request under the participant's view.
func below(r *http.Request) string {
	_, path, _ := strings.Cut(r.URL.EscapedPath(), "/v1")
	return path
}
