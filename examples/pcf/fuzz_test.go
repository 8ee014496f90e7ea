// SPDX-License-Identifier: Apache-2.0

package pcf

import (
	"encoding/json"
	"testing"
)

// FuzzRead: what is taken for a footprint says whose and of what it is, and how much, in a number.
func FuzzRead(f *testing.F) {
	whole := string(housing(f, &Attestation{"Prüfhaus AG", "BPNL00000000AUDI", now.AddDate(0, -3, 0)}))
	f.Add([]byte(whole))
	f.Add(housing(f, nil))
	f.Add([]byte(whole[:len(whole)/2]))
	f.Add([]byte(`{"scopeOfPcfForm":[null],"companyAndProductInformation":[{}],"pcfAssessmentAndMethodology":[{}],"general":[{}],"carbonContent":[{}],"productLifeCycleStagesAndEmissions":[{}]}`))
	f.Add([]byte(`{"scopeOfPcfForm":[{"specVersion":["` + SpecVersion + `"]}],"SCOPEOFPCFFORM":[],"general":{}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := Read(raw)
		if err != nil {
			return
		}
		if s.Company == "" || s.Product == "" || s.Unit == "" || s.AssessmentID == "" || !json.Valid([]byte(s.Footprint)) {
			t.Fatalf("%s is summed up as %+v", raw, s)
		}
	})
}
