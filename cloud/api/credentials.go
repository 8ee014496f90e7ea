// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaphera/kaphera/cloud/authz"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	"github.com/kaphera/kaphera/connector/adminapi"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// Credential is a credential of a participant, as its wallet and as the issuer see it.
type Credential struct {
	ID          string     `json:"id,omitempty" doc:"Empty as long as none is held"`
	Type        string     `json:"type"`
	Issuer      string     `json:"issuer" doc:"DID"`
	State       string     `json:"state,omitempty" doc:"As the participant's wallet last reported it: Wanted, Requested, Valid, Expiring, Expired, Revoked, Suspended, WrongIssuer, NeverDelivered, Rejected, RenewalStuck; empty when the wallet does not report it, as for one that another has replaced"`
	IssuerState string     `json:"issuerState,omitempty" doc:"As the issuer has it now: Issued, Suspended, Revoked, Expired; empty when it has not issued it"`
	IssuedAt    *time.Time `json:"issuedAt,omitempty"`
	ExpiresAt   *time.Time `json:"expiresAt,omitempty"`
	Detail      string     `json:"detail,omitempty" doc:"Why it is not valid"`
	Remedy      string     `json:"remedy,omitempty" doc:"What to do; empty when nothing is to be done"`
}

// Credentials are those of a participant; issuers whose cell does not answer are named, since their view is missing then.
type Credentials struct {
	Items       []Credential `json:"items"`
	Unreachable []string     `json:"unreachable,omitempty" doc:"DIDs of issuers that do not answer now"`
}

func registerCredentials(api huma.API, s *Service) {
	const path = ofP + "/credentials"
	huma.Register(api, operation(authz.OpListCredentials, http.MethodGet, path, "List a participant's credentials, as its wallet and as the profile's issuers see them"),
		func(ctx context.Context, in *OfParticipant) (*output[Credentials], error) {
			l, err := s.Credentials(ctx, in.Participant)
			return &output[Credentials]{l}, err
		})
	for _, a := range []struct{ op, verb, action, summary string }{
		{authz.OpRevokeCredential, "revoke", "revoke", "Revoke a credential; that is final"},
		{authz.OpSuspendCredential, "suspend", "suspend", "Suspend a credential: it does not count until it is resumed"},
		{authz.OpResumeCredential, "resume", "resume", "Resume a suspended credential"},
		{authz.OpRedeliverCredential, "redeliver", "deliver", "Deliver a credential to its holder's wallet again"},
	} {
		huma.Register(api, operation(a.op, http.MethodPost, path+"/{id}/"+a.verb, a.summary),
			func(ctx context.Context, in *WithID) (*output[adminapi.Issued], error) {
				c, err := s.ChangeCredential(ctx, in.Participant, in.ID, a.action)
				return &output[adminapi.Issued]{c}, err
			})
	}
}

// Credentials lists a participant's credentials.
func (s *Service) Credentials(ctx context.Context, participant string) (Credentials, error) {
	out := Credentials{Items: []Credential{}}
	p, err := s.participant(ctx, participant)
	if err != nil {
		return out, err
	}
	if err := s.holdsContext(ctx, p); err != nil { // or the DID is another's
		return out, err
	}
	for _, c := range p.Status.Credentials {
		one := Credential{ID: c.ID, Type: c.Type, Issuer: c.Issuer, State: c.State, Detail: c.Detail, Remedy: c.Remedy}
		if c.IssuedAt != nil {
			one.IssuedAt = &c.IssuedAt.Time
		}
		if c.ExpiresAt != nil {
			one.ExpiresAt = &c.ExpiresAt.Time
		}
		out.Items = append(out.Items, one)
	}
	issuers, err := s.issuers(ctx, p)
	if err != nil {
		return out, err
	}
	for _, i := range issuers {
		issued, err := s.issued(ctx, i, p)
		if err != nil {
			s.Log.InfoContext(ctx, "an issuer could not be asked", "issuer", i.Name, "error", err)
			out.Unreachable = append(out.Unreachable, snapshot.IssuerDID(i))
			continue
		}
		for _, c := range issued {
			at := slices.IndexFunc(out.Items, func(held Credential) bool { return held.ID == c.ID })
			if at < 0 {
				at = len(out.Items)
				out.Items = append(out.Items, Credential{ID: c.ID, Type: c.Type, Issuer: snapshot.IssuerDID(i), IssuedAt: &c.IssuedAt, ExpiresAt: &c.ExpiresAt})
			}
			out.Items[at].IssuerState = c.State
		}
	}
	return out, nil
}

// ChangeCredential revokes, suspends, resumes or delivers a credential of a participant again, at the issuer that has issued it.
func (s *Service) ChangeCredential(ctx context.Context, participant, id, action string) (out adminapi.Issued, err error) {
	p, err := s.participant(ctx, participant)
	if err != nil {
		return out, err
	}
	if err := s.holdsContext(ctx, p); err != nil {
		return out, err
	}
	issuers, err := s.issuers(ctx, p)
	if err != nil {
		return out, err
	}
	var unreachable error
	for _, i := range issuers {
		issued, err := s.issued(ctx, i, p)
		if err != nil {
			unreachable = err
			continue
		}
		if slices.ContainsFunc(issued, func(c adminapi.Issued) bool { return c.ID == id }) {
			err := s.askIssuer(ctx, i, http.MethodPost, "/credentials/"+url.PathEscape(id)+"/"+action, &out)
			return out, err
		}
	}
	if unreachable != nil {
		return out, unreachable
	}
	return out, problem(http.StatusNotFound, CodeNotFound, fmt.Sprintf("no issuer of profile %s has issued a credential %q to participant %q", strings.Join(p.Spec.Profiles(), ", "), id, p.Name),
		"list them: kaphera credential list "+p.Name)
}

// issuers are those of a participant's dataspace profiles.
func (s *Service) issuers(ctx context.Context, p *cloudv1.Participant) (out []cloudv1.Issuer, err error) {
	for _, name := range p.Spec.Profiles() {
		var profile cloudv1.DataspaceProfile
		if ok, err := s.exists(ctx, name, &profile); err != nil {
			return nil, dataspaceProfiles.problem(name, err)
		} else if !ok {
			continue
		}
		for _, i := range profile.Spec.Issuers {
			if !slices.ContainsFunc(out, func(o cloudv1.Issuer) bool { return o.Cell == i.Cell && o.Name == i.Name }) {
				out = append(out, i)
			}
		}
	}
	return out, nil
}

// issued is what an issuer has issued to a participant, the newest first. What is older than the participant and not in its wallet was another's:
// of a removed one that had the same DID.
func (s *Service) issued(ctx context.Context, i cloudv1.Issuer, p *cloudv1.Participant) (out []adminapi.Issued, err error) {
	if p.Status.DID == "" {
		return nil, nil
	}
	err = s.askIssuer(ctx, i, http.MethodGet, "/credentials?"+url.Values{"holder": {p.Status.DID}}.Encode(), &out)
	return slices.DeleteFunc(out, func(c adminapi.Issued) bool {
		return c.IssuedAt.Before(p.CreationTimestamp.Time) && !slices.ContainsFunc(p.Status.Credentials, func(held edc.CredentialStatus) bool { return held.ID == c.ID })
	}), err
}

func (s *Service) askIssuer(ctx context.Context, i cloudv1.Issuer, method, path string, out any) error {
	to := callee{i.Cell, fmt.Sprintf("issuer %q", i.Name), "kaphera describe cell " + i.Cell}
	resp, err := s.send(ctx, to, cellrpc.Request{Issuer: i.Name, Method: method, Path: path}, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(resp.Body, out); err != nil {
		return internalError(fmt.Errorf("answer of issuer %s to %s %s: %w", i.Name, method, path, err))
	}
	return nil
}
