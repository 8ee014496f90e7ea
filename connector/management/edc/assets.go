// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/kaphera/kaphera/connector/dataplane"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/vault"
)

func (a *API) assets() []route {
	x := resource[store.Asset]{kind: "asset", typ: "Asset", path: "/assets", area: "assets", view: assetDoc,
		get: a.Store.Asset, query: a.Store.QueryAssets, decode: a.readAsset, save: a.saveAsset, remove: a.removeAsset}
	return x.routes()
}

func (a *API) readAsset(c *call, id string) (*store.Asset, error) {
	out, err := readAsset(c, id)
	if err != nil {
		return nil, err
	}
	if err := dataplane.CheckBackend(c.Context(), a.Backends, out.DataAddress); err != nil {
		return nil, invalid("$.dataAddress.baseUrl", err.Error())
	}
	return out, nil
}

func readAsset(c *call, id string) (*store.Asset, error) {
	out := &store.Asset{Ctx: c.participant.Ctx, ID: id}
	var err error
	if out.Properties, err = properties(c.body, "properties"); err != nil {
		return nil, err
	}
	delete(out.Properties, "id") // the same as @id
	if out.PrivateProperties, err = properties(c.body, "privateProperties"); err != nil {
		return nil, err
	}
	if _, ok := c.body["dataplaneMetadata"]; ok {
		return nil, invalid("$.dataplaneMetadata", "not supported: say where the data is with dataAddress")
	}
	out.DataAddress, err = readAddress(c.body)
	return out, err
}

// inHeaders are headers whose value is a secret.
var inHeaders = []string{"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"}

// readAddress reads where an asset's data is. Only the data plane's own kind is taken, so that what is offered can be fetched.
func readAddress(doc map[string]any) (map[string]string, error) {
	in, err := object(doc, "dataAddress")
	if err != nil {
		return nil, err
	}
	if in == nil {
		return nil, missing("$.dataAddress")
	}
	out := map[string]string{}
	for k := range in {
		if strings.HasPrefix(k, "@") {
			continue
		}
		if out[k], err = text(in, "$.dataAddress", k); err != nil {
			return nil, err
		}
		if name, ok := strings.CutPrefix(k, "header:"); ok && slices.Contains(inHeaders, strings.ToLower(name)) {
			return nil, invalid("$.dataAddress."+k, "a secret in clear: store it as a secret and name it with secretName, and the header with authKey")
		}
	}
	check := maps.Clone(out)
	if check["authCode"] != "" { // it will be a secret, see saveAsset
		if check["secretName"] != "" {
			return nil, invalid("$.dataAddress.authCode", "write either authCode or secretName, not both")
		}
		delete(check, "authCode")
		check["secretName"] = "moved"
	}
	if err := dataplane.Check(check); err != nil {
		return nil, invalid("$.dataAddress", err.Error())
	}
	return out, nil
}

// ownSecret begins the names of secrets that were moved out of data addresses.
const ownSecret = "asset-secret-" // #nosec G101 -- a name

// saveAsset moves an authCode into the Vault, under a new name each time: what is stored and shown has only that name.
func (a *API) saveAsset(ctx context.Context, mode store.Mode, o *store.Asset) error {
	var old, made string
	if mode == store.Update {
		before, err := a.Store.Asset(ctx, o.Ctx, o.ID)
		if err != nil {
			return err
		}
		old = before.DataAddress["secretName"]
	}
	if code := o.DataAddress["authCode"]; code != "" {
		made = ownSecret + uuid.NewString()
		if err := a.Secrets.PutSecret(ctx, o.Ctx, made, code); err != nil {
			return err
		}
		delete(o.DataAddress, "authCode")
		o.DataAddress["secretName"] = made
	}
	err := a.Store.SaveAsset(ctx, mode, o)
	if err != nil {
		old = made
	}
	if strings.HasPrefix(old, ownSecret) && (err != nil || old != o.DataAddress["secretName"]) {
		a.forget(ctx, o.Ctx, old)
	}
	return err
}

func (a *API) removeAsset(ctx context.Context, participant, id string) error {
	before, err := a.Store.Asset(ctx, participant, id)
	if err != nil {
		return err
	}
	if err := a.Store.DeleteUnusedAsset(ctx, participant, id); err != nil {
		return err
	}
	if name := before.DataAddress["secretName"]; strings.HasPrefix(name, ownSecret) {
		a.forget(ctx, participant, name)
	}
	return nil
}

// forget removes a secret that nothing names any more; one that stays is of no use to anybody.
func (a *API) forget(ctx context.Context, participant, name string) {
	if err := a.Secrets.DeleteSecret(context.WithoutCancel(ctx), participant, name); err != nil {
		a.Log.WarnContext(ctx, "a secret that is not used any more could not be removed", "participant", participant, "secret", name, "error", err)
	}
}

func assetDoc(o *store.Asset) (map[string]any, error) {
	props := maps.Clone(o.Properties)
	if props == nil {
		props = map[string]any{}
	}
	props["id"] = o.ID
	address := map[string]any{"@type": "DataAddress"}
	for k, v := range o.DataAddress {
		address[k] = v
	}
	if _, ok := o.DataAddress["authCode"]; ok { // written by another API
		address["authCode"] = "…"
	}
	return withPrivate(map[string]any{"@type": "Asset", "@id": o.ID, "createdAt": o.CreatedAt.UnixMilli(), "properties": props, "dataAddress": address}, o.PrivateProperties), nil
}

func (a *API) dataPlanes() []route {
	return []route{{method: http.MethodGet, path: "/dataplanes", area: "dataplanes", summary: "List the data planes", answer: "DataPlaneInstance", list: true,
		do: func(*call) (any, error) {
			return []map[string]any{{"@type": "DataPlaneInstance", "@id": "data-plane", "url": a.DataPlane, "state": "REGISTERED",
				"allowedSourceTypes": []any{"HttpData"}, "allowedTransferTypes": []any{pull}, "allowedDestTypes": []any{}}}, nil
		}}}
}

// secrets are written, and never shown: reading one tells that it is there.
func (a *API) secrets() []route {
	type secret struct{ ctx, name, value string }
	x := resource[secret]{kind: "secret", typ: "Secret", path: "/secrets", area: "secrets",
		decode: func(c *call, id string) (*secret, error) {
			value, err := c.required("value")
			return &secret{c.participant.Ctx, id, value}, err
		},
		get: func(ctx context.Context, participant, name string) (*secret, error) {
			has, err := a.Secrets.HasSecret(ctx, participant, name)
			if err == nil && !has {
				err = vault.ErrNotFound
			}
			return &secret{participant, name, ""}, err
		},
		view: func(o *secret) (map[string]any, error) { return map[string]any{"@type": "Secret", "@id": o.name}, nil },
	}
	x.save = func(ctx context.Context, mode store.Mode, o *secret) error {
		if mode == store.Create {
			return a.Secrets.CreateSecret(ctx, o.ctx, o.name, o.value)
		}
		if _, err := x.get(ctx, o.ctx, o.name); err != nil {
			return err
		}
		return a.Secrets.PutSecret(ctx, o.ctx, o.name, o.value)
	}
	x.remove = func(ctx context.Context, participant, name string) error {
		if _, err := x.get(ctx, participant, name); err != nil {
			return err
		}
		return a.Secrets.DeleteSecret(ctx, participant, name)
	}
	all := x.routes()
	return all[:len(all)-1] // secrets are not listed
}
