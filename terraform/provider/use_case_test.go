// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/json"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework-jsontypes/jsontypes"
)

func TestAUseCaseShowsItsRevisionAndWhetherItIsInForce(t *testing.T) {
	spec := `{"profile":"automotive","title":"t","assetType":"a","contractPolicy":{},"signers":[{"role":"governance-authority"}]}`
	for name, c := range map[string]struct {
		status            string
		revision, inForce int64
		hash              string
	}{
		"not signed off yet": {`{"revision":{"number":1,"hash":"ab"}}`, 1, 0, "ab"},
		"the one before":     {`{"revision":{"number":2,"hash":"cd"},"inForce":{"number":1,"hash":"ab"}}`, 2, 1, "cd"},
		"no revision":        {`{}`, 0, 0, ""},
	} {
		var m useCaseModel
		if diags := m.read(object{Name: "footprint", Spec: json.RawMessage(spec), Status: json.RawMessage(c.status)}); diags.HasError() {
			t.Fatal(diags)
		}
		if m.Revision.ValueInt64() != c.revision || m.Revision.IsNull() != (c.revision == 0) || m.InForce.ValueInt64() != c.inForce || m.InForce.IsNull() != (c.inForce == 0) || m.Hash.ValueString() != c.hash {
			t.Errorf("%s: revision %s, hash %s, in force %s", name, m.Revision, m.Hash, m.InForce)
		}
		if s, ok := m.spec().(useCaseSpec); !ok || string(s.Signers) != `[{"role":"governance-authority"}]` {
			t.Errorf("%s: signers %s", name, s.Signers)
		}
	}
	m := useCaseModel{Signers: jsontypes.NewNormalizedNull()}
	if s, ok := m.spec().(useCaseSpec); !ok || s.Signers != nil {
		t.Errorf("without signers: %s", s.Signers)
	}
}
