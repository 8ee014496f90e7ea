// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/odrl"
)

// edcNamespace is the vocabulary in which EDC writes an asset's own properties.
const edcNamespace = "https://w3id.org/edc/v0.0.1/ns/"

// reserved are members of a dataset that an asset's property must not take.
var reserved = []string{"hasPolicy", "distribution", "dataset", "service", "catalog", "participantId"}

// Dataset is an asset with its offers.
type Dataset struct {
	ID         string
	Properties map[string]any
	Offers     []json.RawMessage // compact, without target
	Formats    []string
}

// EncodeDataset writes a dataset; base is the provider's DSP base.
func EncodeDataset(d Dataset, base string) map[string]any {
	out := map[string]any{}
	for k, v := range d.Properties {
		if strings.HasPrefix(k, "@") || slices.Contains(reserved, k) {
			continue
		}
		if !strings.Contains(k, ":") {
			k = edcNamespace + k
		}
		out[k] = v
	}
	var distributions []any
	for _, f := range d.Formats {
		distributions = append(distributions, map[string]any{"@type": "Distribution", "format": f, "accessService": service(base)})
	}
	out["@id"], out["@type"], out["hasPolicy"], out["distribution"] = d.ID, "Dataset", d.Offers, distributions
	return out
}

func service(base string) map[string]any {
	return map[string]any{"@id": base, "@type": "DataService", "endpointDescription": "dspace:connector", "endpointURL": base}
}

// EncodeCatalog writes a catalog; without datasets it has no dataset member.
func EncodeCatalog(id, participant, base string, datasets []Dataset) map[string]any {
	out := map[string]any{"@context": []string{Context}, "@id": id, "@type": "Catalog", "participantId": participant, "service": []any{service(base)}}
	if len(datasets) > 0 {
		list := make([]any, 0, len(datasets))
		for _, d := range datasets {
			list = append(list, EncodeDataset(d, base))
		}
		out["dataset"] = list
	}
	return out
}

// ParseCatalog reads a catalog: members may be single values or arrays. Offers stay as they came.
func ParseCatalog(raw []byte) (participant string, datasets []Dataset, err error) {
	members, err := object(raw)
	if err != nil {
		return "", nil, err
	}
	if t, err := text("$.@type", members["@type"]); err != nil || t != "Catalog" {
		return "", nil, errorf("$.@type", "is %s, want \"Catalog\"", members["@type"])
	}
	if p, ok := members["participantId"]; ok {
		if participant, err = text("$.participantId", p); err != nil {
			return "", nil, err
		}
	}
	if members["dataset"] == nil {
		return participant, nil, nil
	}
	for i, item := range many(members["dataset"]) {
		d, err := parseDataset(fmt.Sprintf("$.dataset[%d]", i), item)
		if err != nil {
			return "", nil, err
		}
		datasets = append(datasets, d)
	}
	return participant, datasets, nil
}

func parseDataset(path string, raw json.RawMessage) (Dataset, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return Dataset{}, errorf(path, "must be an object")
	}
	d := Dataset{Properties: map[string]any{}}
	var err error
	if d.ID, err = text(path+".@id", members["@id"]); err != nil {
		return Dataset{}, err
	}
	for name, value := range members {
		switch {
		case name == "hasPolicy":
			d.Offers = many(value)
		case name == "distribution":
			for _, item := range many(value) {
				var dist struct {
					Format json.RawMessage `json:"format"`
				}
				if err := json.Unmarshal(item, &dist); err != nil {
					return Dataset{}, errorf(path+".distribution", "must be objects")
				}
				if f := format(dist.Format); f != "" && !slices.Contains(d.Formats, f) {
					d.Formats = append(d.Formats, f)
				}
			}
		case strings.HasPrefix(name, "@") || slices.Contains(reserved, name):
		default:
			var v any
			_ = json.Unmarshal(value, &v) // part of a document that was read as JSON
			d.Properties[strings.TrimPrefix(strings.TrimPrefix(name, edcNamespace), "edc:")] = v
		}
	}
	return d, nil
}

// format reads a distribution's format: a string, or an object with @id.
func format(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var ref struct {
		ID string `json:"@id"`
	}
	_ = json.Unmarshal(raw, &ref) // neither form: no format
	return ref.ID
}

// FindOffer looks an offer up by id and returns it as it came, parsed, with its dataset.
func FindOffer(datasets []Dataset, id string) (json.RawMessage, *odrl.Policy, Dataset, error) {
	for _, d := range datasets {
		for i, raw := range d.Offers {
			var members map[string]json.RawMessage // not a struct, which would take "@Id" for it
			var given string
			if json.Unmarshal(raw, &members) != nil || json.Unmarshal(members["@id"], &given) != nil || given != id {
				continue
			}
			p, err := odrl.Parse(raw)
			if err != nil {
				return nil, nil, Dataset{}, fmt.Errorf("offer %s of %s, hasPolicy[%d]: %w", id, d.ID, i, err)
			}
			return raw, p, d, nil
		}
	}
	return nil, nil, Dataset{}, nil
}

// WithTarget returns an offer as it came with target and assigner added, which a message needs and a catalog has not.
func WithTarget(offer json.RawMessage, target, assigner string) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(offer, &members); err != nil {
		return nil, fmt.Errorf("offer: %w", err)
	}
	for name, value := range map[string]string{"target": target, "assigner": assigner} {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		members[name] = raw
	}
	return json.Marshal(members)
}

// ErrorBody is the body of a refusal. Process errors name both process ids, empty where unknown (DSP 2025-1 §5.6).
func ErrorBody(errorType, providerPID, consumerPID, code string, reason ...string) map[string]any {
	out := map[string]any{"@context": []string{Context}, "@type": errorType, "code": code}
	if len(reason) > 0 {
		out["reason"] = reason
	}
	if errorType != CatalogError {
		out["providerPid"], out["consumerPid"] = providerPID, consumerPID
	}
	return out
}
