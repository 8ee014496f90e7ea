// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"net/http"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/store"
)

func (a *API) catalogs() []route {
	return []route{
		{method: http.MethodPost, path: "/catalog/request", area: "catalog", summary: "Ask a counterparty for its catalog", body: "CatalogRequest",
			answer: "Catalog", raw: true, do: a.catalog},
		{method: http.MethodPost, path: "/catalog/dataset/request", area: "catalog", summary: "Ask a counterparty for one dataset of its catalog", body: "DatasetRequest",
			answer: "Dataset", raw: true, do: a.dataset},
	}
}

// counterparty reads whom a request is for, and sees the participant in the profile that it names: as in EDC, protocol may do so too. The address
// may be absent: then it is looked up in the DID document.
func (c *call) counterparty() (did, address string, err error) {
	for _, name := range []string{"protocol", "profile"} {
		v, err := c.text(name)
		if err != nil {
			return "", "", err
		}
		if v == "" || v == wire.Protocol {
			continue
		}
		in, ok := c.participant.In(v)
		if !ok {
			return "", "", invalidValue("$."+name, v, "not supported: only %q, or a dataspace profile of the participant", wire.Protocol)
		}
		c.participant = in
	}
	if address, err = c.text("counterPartyAddress"); err == nil {
		did, err = c.text("counterPartyId")
	}
	return did, address, err
}

// datasets asks a counterparty for what it offers now.
func (a *API) datasets(c *call) ([]wire.Dataset, string, string, error) {
	did, address, err := c.counterparty()
	switch {
	case err != nil:
		return nil, "", "", err
	case did == "":
		return nil, "", "", missing("$.counterPartyId")
	case len(many(c.body, "additionalScopes")) > 0:
		return nil, "", "", invalid("$.additionalScopes", "not supported: the scopes that a catalog may need follow from the dataspace profile")
	}
	all, address, err := a.Engine.FetchCatalog(c.Context(), c.participant.Ctx, c.participant.ProfileName, did, address)
	return all, did, address, err
}

func (a *API) catalog(c *call) (any, error) {
	spec, err := object(c.body, "querySpec")
	if err != nil {
		return nil, err
	}
	q, err := querySpec(spec, "$.querySpec")
	switch {
	case err != nil:
		return nil, err
	case q.SortField != "":
		return nil, invalidValue("$.querySpec.sortField", q.SortField, "not supported: the provider orders its catalog")
	}
	all, did, address, err := a.datasets(c)
	if err != nil {
		return nil, err
	}
	selects := &store.Definition{Selector: q.Filter}
	all = slices.DeleteFunc(all, func(d wire.Dataset) bool { return !selects.Selects(&store.Asset{ID: d.ID, Properties: d.Properties}) })
	start := min(q.Offset, len(all))
	doc := wire.EncodeCatalog(strings.TrimSuffix(address, "/")+"/catalog", did, address, all[start:min(start+q.Limit, len(all))])
	for _, d := range many(doc, "dataset") {
		edcProperties(d.(map[string]any)) //nolint:forcetypeassert // made by EncodeCatalog
	}
	doc["@context"] = []string{contextDSP, contextEDC}
	return doc, nil
}

func (a *API) dataset(c *call) (any, error) {
	id, err := c.required("@id")
	if err != nil {
		return nil, err
	}
	all, did, address, err := a.datasets(c)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(d wire.Dataset) bool { return d.ID == id })
	if i < 0 {
		return nil, &apiError{Status: http.StatusNotFound, Type: typeNotFound, Message: did + " offers no dataset " + id + " to you now"}
	}
	doc := wire.EncodeDataset(all[i], address)
	edcProperties(doc)
	doc["@context"] = []string{contextDSP, contextEDC}
	return doc, nil
}

// edcProperties spells a dataset's properties as EDC's context does.
func edcProperties(dataset map[string]any) {
	for k, v := range dataset {
		if term, ok := strings.CutPrefix(k, namespace); ok {
			delete(dataset, k)
			if !slices.Contains([]string{"id", "description", "inForceDate"}, term) {
				term = "edc:" + term
			}
			dataset[term] = v
		}
	}
	dataset["id"] = dataset["@id"]
}
