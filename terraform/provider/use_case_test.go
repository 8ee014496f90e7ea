// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework-jsontypes/jsontypes"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
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

func TestApplyingWarnsWhileTheNewestRevisionIsNotSignedOff(t *testing.T) {
	t.Parallel()
	const waits = "revision 2 waits for the sign-off of everybody with the role governance-authority: kaphera usecase sign-off footprint --revision 2"
	for signed, warnings := range map[string]int{"False": 1, "True": 0} {
		r, ok := newUseCase().(*objectResource[useCaseModel, *useCaseModel])
		if !ok {
			t.Fatal("not an object resource")
		}
		r.api = connected(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{"name":"footprint","generation":2,"spec":{"profile":"automotive","title":"t","assetType":"a","contractPolicy":{}},"status":{"revision":{"number":2,"hash":"cd"},"conditions":[
				{"type":"PolicyValid","status":"True","observedGeneration":2},{"type":"SignedOff","status":%q,"message":%q,"observedGeneration":2}]}}`, signed, waits)
		})
		state := tfsdk.State{Schema: useCaseSchema(), Raw: tftypes.NewValue(useCaseSchema().Type().TerraformType(t.Context()), nil)}
		var diags diag.Diagnostics
		r.store(t.Context(), &useCaseModel{Name: types.StringValue("footprint"), ContractPolicy: jsontypes.NewNormalizedValue("{}")}, &state, &diags)
		if diags.HasError() || diags.WarningsCount() != warnings {
			t.Fatalf("signed off %s: %v", signed, diags)
		}
		for _, d := range diags {
			if !strings.Contains(d.Detail(), waits) {
				t.Errorf("it warns: %s", d.Detail())
			}
		}
	}
}
