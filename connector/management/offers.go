// SPDX-License-Identifier: Apache-2.0

package management

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dataplane"
	"github.com/kaphera/kaphera/connector/dsp"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/store"
)

func (s *server) offerRoutes(mux *http.ServeMux) {
	const base = " /api/{ctx}/v1"
	mux.Handle("GET"+base+"/assets", s.inParticipant(http.StatusOK, s.listAssets))
	mux.Handle("GET"+base+"/assets/{id}", s.inParticipant(http.StatusOK, s.getAsset))
	mux.Handle("PUT"+base+"/assets/{id}", s.inParticipant(http.StatusOK, s.putAsset))
	mux.Handle("DELETE"+base+"/assets/{id}", s.inParticipant(http.StatusOK, s.deleteAsset))
	mux.Handle("PUT"+base+"/secrets/{alias}", s.inParticipant(http.StatusOK, s.putSecret))
	mux.Handle("GET"+base+"/offers", s.inParticipant(http.StatusOK, s.listOffers))
	mux.Handle("GET"+base+"/offers/{id}", s.inParticipant(http.StatusOK, s.getOffer))
	mux.Handle("PUT"+base+"/offers/{id}", s.inParticipant(http.StatusOK, s.putOffer))
	mux.Handle("DELETE"+base+"/offers/{id}", s.inParticipant(http.StatusOK, s.deleteOffer))
	mux.Handle("POST"+base+"/offers/{id}/negotiations", s.inParticipant(http.StatusCreated, s.offerTo))
	mux.Handle("GET"+base+"/use-cases", s.inParticipant(http.StatusOK, s.listUseCases))
	mux.Handle("PUT"+base+"/use-cases/{name}", s.inParticipant(http.StatusOK, s.putUseCase))
	mux.Handle("GET"+base+"/catalog", s.inParticipant(http.StatusOK, s.catalog))
}

func assetView(a *store.Asset) adminapi.Asset {
	return adminapi.Asset{ID: a.ID, Properties: a.Properties, DataAddress: a.DataAddress}
}

func (s *server) listAssets(r *http.Request, p *store.Participant) (any, error) {
	all, err := s.Store.Assets(r.Context(), p.Ctx)
	out := make([]adminapi.Asset, 0, len(all))
	for _, a := range all {
		out = append(out, assetView(a))
	}
	return out, err
}

func (s *server) getAsset(r *http.Request, p *store.Participant) (any, error) {
	a, err := s.Store.Asset(r.Context(), p.Ctx, r.PathValue("id"))
	if err != nil {
		return nil, describe(err, "asset", r.PathValue("id"))
	}
	return assetView(a), nil
}

func (s *server) putAsset(r *http.Request, p *store.Participant) (any, error) {
	a, err := decode[adminapi.Asset](r)
	if err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	if a.ID == "" {
		a.ID = id
	}
	if a.ID != id {
		return nil, invalid("$.id: is %q, the address says %q", a.ID, id)
	}
	if len(a.DataAddress) == 0 {
		return nil, invalid("$.dataAddress: missing; it says where the data is, such as {\"type\":\"HttpData\",\"baseUrl\":\"https://backend.example\"}")
	}
	return a, s.storeAsset(r.Context(), store.Asset{Ctx: p.Ctx, ID: id, Properties: a.Properties, DataAddress: a.DataAddress})
}

// storeAsset refuses an asset whose data the data plane would refuse to read.
func (s *server) storeAsset(ctx context.Context, a store.Asset) error {
	if err := dataplane.CheckBackend(ctx, s.Backends, a.DataAddress); err != nil {
		return invalid("$.dataAddress: %v", err)
	}
	return s.Store.PutAsset(ctx, a)
}

func (s *server) deleteAsset(r *http.Request, p *store.Participant) (any, error) {
	return nil, describe(s.Store.DeleteAsset(r.Context(), p.Ctx, r.PathValue("id")), "asset", r.PathValue("id"))
}

func (s *server) putSecret(r *http.Request, p *store.Participant) (any, error) {
	secret, err := decode[adminapi.Secret](r)
	if err != nil {
		return nil, err
	}
	if secret.Value == "" {
		return nil, invalid("$.value: missing")
	}
	if err := s.Store.Record(r.Context(), p.Ctx); err != nil { // the Vault knows no transaction: what is not on record is not done
		return nil, err
	}
	return nil, s.Secrets.PutSecret(r.Context(), p.Ctx, r.PathValue("alias"), secret.Value)
}

// contractID is where the contract policy of an offer is kept.
func contractID(offer string) string { return offer + ":contract" }

func (s *server) listOffers(r *http.Request, p *store.Participant) (any, error) {
	all, err := s.Store.Definitions(r.Context(), p.Ctx)
	if err != nil {
		return nil, err
	}
	out := make([]adminapi.Offer, 0, len(all))
	for _, d := range all {
		o, err := s.offerView(r.Context(), p, d)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func (s *server) getOffer(r *http.Request, p *store.Participant) (any, error) {
	d, err := s.Store.Definition(r.Context(), p.Ctx, r.PathValue("id"))
	if err != nil {
		return nil, describe(err, "offer", r.PathValue("id"))
	}
	return s.offerView(r.Context(), p, d)
}

// inProfiles are the views of a participant in the profiles that an offer names; none is the default one.
func inProfiles(p *store.Participant, names []string) ([]*store.Participant, error) {
	if len(names) == 0 {
		return []*store.Participant{p}, nil
	}
	var out []*store.Participant
	for i, name := range names {
		in, ok := p.In(name)
		if !ok || name == "" || slices.Contains(names[:i], name) {
			return nil, invalid("$.profiles[%d]: %q must be one of the participant's dataspace profiles, named once", i, name)
		}
		out = append(out, in)
	}
	return out, nil
}

// offerView shows an offer with what the catalogs do with it now, and why. It is withheld if one of its profiles withholds it.
func (s *server) offerView(ctx context.Context, p *store.Participant, d *store.Definition) (adminapi.Offer, error) {
	ids, _ := d.SelectedIDs()
	if ids == nil {
		assets, err := s.Store.Assets(ctx, p.Ctx)
		if err != nil {
			return adminapi.Offer{}, err
		}
		for _, a := range assets {
			if d.Selects(a) {
				ids = append(ids, a.ID)
			}
		}
	}
	out := adminapi.Offer{ID: d.ID, Assets: append([]string{}, ids...), UseCase: d.UseCase, Revision: d.Revision, Profiles: d.Profiles, AccessPolicy: d.AccessPolicy, ContractPolicy: d.ContractPolicy, Gates: d.Gates, State: "Offered"}
	policy, err := odrl.Parse(d.ContractPolicy)
	if err != nil {
		return adminapi.Offer{}, err
	}
	all, err := inProfiles(p, d.Profiles)
	if err != nil {
		out.State = "Withheld"
		return out, nil //nolint:nilerr // the participant has left a profile, where the offer is made no more
	}
	for _, in := range all {
		if out.Trace, err = s.Engine.SelfCheck(ctx, in, policy); err != nil {
			return adminapi.Offer{}, err
		}
		if out.Trace != nil && !out.Trace.Allowed {
			out.State = "Withheld"
			break
		}
	}
	return out, nil
}

func (s *server) putOffer(r *http.Request, p *store.Participant) (any, error) {
	o, err := decode[adminapi.Offer](r)
	if err != nil {
		return nil, err
	}
	id := r.PathValue("id")
	if o.ID == "" {
		o.ID = id
	}
	if o.ID != id {
		return nil, invalid("$.id: is %q, the address says %q", o.ID, id)
	}
	if len(o.Assets) == 0 {
		return nil, invalid("$.assets: name at least one asset")
	}
	for _, a := range o.Assets {
		if _, err := s.Store.Asset(r.Context(), p.Ctx, a); err != nil {
			return nil, describe(err, "asset", a)
		}
	}
	d := store.Definition{Ctx: p.Ctx, ID: id, ContractPolicyID: contractID(id), ContractPolicy: o.ContractPolicy, Selector: store.SelectAssets(o.Assets), UseCase: o.UseCase,
		Profiles: o.Profiles, Gates: o.Gates}
	if o.AccessPolicy != nil {
		access := store.AccessPolicyID(id)
		d.AccessPolicyID, d.AccessPolicy = &access, o.AccessPolicy
	}
	if o.Revision, err = s.revisionOf(r.Context(), p, o); err != nil {
		return nil, err
	}
	d.Revision = o.Revision
	all, err := inProfiles(p, o.Profiles)
	if err != nil {
		return nil, err
	}
	for _, in := range all {
		contract, err := s.checkPolicy(in, "$.contractPolicy", o.ContractPolicy, (*odrl.Evaluator).Check)
		if err != nil {
			return nil, err
		}
		if o.AccessPolicy != nil {
			if _, err := s.checkPolicy(in, "$.accessPolicy", o.AccessPolicy, (*odrl.Evaluator).CheckAccess); err != nil {
				return nil, err
			}
		}
		if err := s.checkGates(in, o.Gates, contract); err != nil {
			return nil, err
		}
		if o.Trace, err = s.Engine.SelfCheck(r.Context(), in, contract); err != nil {
			return nil, err
		}
		if o.Trace != nil && !o.Trace.Allowed {
			return nil, &dsp.RefusalError{Status: http.StatusForbidden, Code: "policy-denied", Message: odrl.Reason(*o.Trace, ""), Trace: o.Trace}
		}
	}
	if err := s.Store.PutDefinition(r.Context(), d); err != nil {
		return nil, err
	}
	o.State = "Offered"
	return o, nil
}

// checkGates refuses gates that could not be held or never pass, by JSON path (422).
func (s *server) checkGates(p *store.Participant, gates []adminapi.Gate, contract *odrl.Policy) error {
	const root = "$.gates"
	var oe *odrl.Error
	if err := gate.Check(gates); errors.As(err, &oe) {
		return &odrl.Error{Path: root + oe.Path[1:], Message: oe.Message}
	} else if err != nil {
		return err
	}
	ev, err := s.Engine.Evaluator(p)
	if err != nil {
		return err
	}
	for i, g := range gates {
		if g.Type == adminapi.GateWebhook {
			if err := s.Engine.CheckWebhook(g.URL); err != nil {
				return &odrl.Error{Path: fmt.Sprintf("%s[%d].url", root, i), Message: err.Error()}
			}
		}
		if g.Type != adminapi.GateAttestation {
			continue
		}
		path := fmt.Sprintf("%s[%d].policy", root, i)
		policy, err := s.checkPolicy(p, path, g.Policy, (*odrl.Evaluator).Check)
		if err != nil {
			return err
		}
		if scope := dsp.Unasked(ev, policy, contract); scope != "" {
			return &odrl.Error{Path: path, Message: fmt.Sprintf("the consumer is not asked for what it needs (%s): name it in the contract policy too", scope)}
		}
	}
	return nil
}

// checkPolicy refuses a policy that could not be evaluated, by JSON path (422).
func (s *server) checkPolicy(p *store.Participant, path string, raw json.RawMessage, check func(*odrl.Evaluator, *odrl.Policy) error) (*odrl.Policy, error) {
	if raw == nil {
		return nil, invalid("%s: missing", path)
	}
	ev, err := s.Engine.Evaluator(p)
	if err != nil {
		return nil, err
	}
	policy, err := odrl.Parse(raw)
	if err == nil {
		err = check(ev, policy)
	}
	var oe *odrl.Error
	if errors.As(err, &oe) {
		return nil, &odrl.Error{Path: path + oe.Path[1:], Message: oe.Message}
	}
	return policy, err
}

func (s *server) deleteOffer(r *http.Request, p *store.Participant) (any, error) {
	id := r.PathValue("id")
	return nil, describe(s.Store.DeleteDefinition(r.Context(), p.Ctx, id, store.AccessPolicyID(id), contractID(id)), "offer", id)
}

// offerTo makes an offer to one consumer.
func (s *server) offerTo(r *http.Request, p *store.Participant) (any, error) {
	req, err := decode[adminapi.OfferRequest](r)
	if err != nil {
		return nil, err
	}
	n, err := s.Engine.OfferTo(r.Context(), p.Ctx, r.PathValue("id"), req)
	if err != nil {
		return nil, err
	}
	return s.negotiationView(p, n)
}

// catalog asks a counterparty for what it offers to the participant now.
func (s *server) catalog(r *http.Request, p *store.Participant) (any, error) {
	q := r.URL.Query()
	if q.Get("counterparty") == "" {
		return nil, invalid("counterparty: name the DID to ask, ?counterparty=did:web:...")
	}
	in, ok := p.In(q.Get("profile"))
	if !ok {
		return nil, invalid("profile: the participant does not take part in dataspace profile %q", q.Get("profile"))
	}
	datasets, _, err := s.Engine.FetchCatalog(r.Context(), p.Ctx, in.ProfileName, q.Get("counterparty"), q.Get("address"))
	if err != nil {
		return nil, err
	}
	ev, err := s.Engine.Evaluator(in)
	if err != nil {
		return nil, err
	}
	out := []adminapi.CatalogEntry{}
	for _, d := range datasets {
		for _, raw := range d.Offers {
			policy, err := odrl.Parse(raw)
			if err != nil { // an offer that is not understood can't be taken
				s.Log.InfoContext(r.Context(), "an offer in a catalog is not understood", "counterparty", q.Get("counterparty"), "asset", d.ID, "error", err)
				continue
			}
			out = append(out, adminapi.CatalogEntry{OfferID: policy.ID, Profile: in.ProfileName, AssetID: d.ID, Properties: d.Properties, Policy: raw,
				Sentences: append([]string{}, ev.Sentences(policy, "en")...), DE: ev.Sentences(policy, "de"), Formats: d.Formats})
		}
	}
	return out, nil
}
