// SPDX-License-Identifier: Apache-2.0

package pcf

import (
	"encoding/json"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)

func housing(t testing.TB, a *Attestation) []byte {
	t.Helper()
	raw, err := GearboxHousing(Supplier{"Musterguss GmbH", "BPNL00000000SUPP"}, a, now)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// requiredMembers are the groups and members that the model requires, by path; every group is a list.
var requiredMembers = []string{
	"scopeOfPcfForm.partialFullPcf", "scopeOfPcfForm.specVersion",
	"companyAndProductInformation.companyInformation.companyName", "companyAndProductInformation.companyInformation.companyIds",
	"companyAndProductInformation.productInformation.productNameCompany", "companyAndProductInformation.productInformation.productIds",
	"companyAndProductInformation.productInformation.declaredUnitOfMeasurement", "companyAndProductInformation.productInformation.declaredUnitAmount",
	"companyAndProductInformation.productInformation.productMassPerDeclaredUnit",
	"pcfAssessmentAndMethodology.pcfAssessmentInformation.idAndVersion.id", "pcfAssessmentAndMethodology.pcfAssessmentInformation.idAndVersion.version",
	"pcfAssessmentAndMethodology.pcfAssessmentInformation.idAndVersion.status", "pcfAssessmentAndMethodology.pcfAssessmentInformation.idAndVersion.retroOrProspectivePcfType",
	"pcfAssessmentAndMethodology.pcfAssessmentInformation.time.referencePeriodStart", "pcfAssessmentAndMethodology.pcfAssessmentInformation.time.referencePeriodEnd",
	"pcfAssessmentAndMethodology.pcfAssessmentInformation.time.created", "pcfAssessmentAndMethodology.pcfAssessmentInformation.time.validityPeriodEnd",
	"pcfAssessmentAndMethodology.dataSourcesAndQuality.primaryDataShare", "pcfAssessmentAndMethodology.pcfMethodology.standards",
	"general.pcfLegalStatement", "carbonContent.carbonContentTotal", "carbonContent.fossilCarbonContent",
	"productLifeCycleStagesAndEmissions.productionStage.pcfIncludingBiogenicUptake", "productLifeCycleStagesAndEmissions.productionStage.pcfExcludingBiogenicUptake",
	"attestationOfConformance.attestationType", "attestationOfConformance.standardName", "attestationOfConformance.attestationStandard",
	"attestationOfConformance.attestationOfConformanceId", "attestationOfConformance.providerName", "attestationOfConformance.completedAt",
}

func TestRequiredMembersAreThere(t *testing.T) {
	raw := housing(t, &Attestation{"Prüfhaus AG", "BPNL00000000AUDI", now.AddDate(0, -3, 0)})
	for _, path := range requiredMembers {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(path, ".")
		for i, part := range parts {
			if i > 0 {
				l, ok := v.([]any)
				if !ok || len(l) == 0 {
					t.Fatalf("%s is not a list with an item", strings.Join(parts[:i], "."))
				}
				v = l[0]
			}
			v = v.(map[string]any)[part]
		}
		if v == nil || v == "" {
			t.Errorf("%s is missing", path)
		}
	}
}

func TestEmissionsAddUp(t *testing.T) {
	var doc struct {
		Stages []struct {
			Production []map[string]json.Number `json:"productionStage"`
		} `json:"productLifeCycleStagesAndEmissions"`
	}
	if err := json.Unmarshal(housing(t, nil), &doc); err != nil {
		t.Fatal(err)
	}
	p := doc.Stages[0].Production[0]
	sum := func(names ...string) *big.Rat {
		total := new(big.Rat)
		for _, n := range names {
			v, ok := new(big.Rat).SetString(p[n].String())
			if !ok {
				t.Fatalf("%s: %q is no number", n, p[n])
			}
			total.Add(total, v)
		}
		return total
	}
	excluding := sum("fossilGhgEmissions", "biogenicNonCO2Emissions", "landUseChangeGhgEmissions", "landManagementBiogenicCO2Emissions", "landManagementBiogenicCO2Removals", "aircraftGhgEmissions")
	if excluding.Cmp(sum("pcfExcludingBiogenicUptake")) != 0 || sum("pcfExcludingBiogenicUptake", "biogenicCO2Uptake").Cmp(sum("pcfIncludingBiogenicUptake")) != 0 {
		t.Errorf("the parts do not add up: %v", p)
	}
}

func TestEveryDocumentCanBeTold(t *testing.T) {
	seen := map[string]bool{}
	for range 20 {
		s, err := Read(housing(t, &Attestation{Provider: "Prüfhaus AG"}))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^6\.\d{6}$`).MatchString(s.Footprint) || len(s.AssessmentID) != 36 || s.Company != "Musterguss GmbH" || s.AttestedBy != "Prüfhaus AG" || s.AttestedAt != "" {
			t.Errorf("%+v", s)
		}
		seen[s.AssessmentID] = true
	}
	if len(seen) != 20 {
		t.Errorf("only %d different documents of 20", len(seen))
	}
}

func TestReadRefuses(t *testing.T) {
	for name, change := range map[string]func(doc group){
		"general": func(doc group) { delete(doc, "general") }, "carbonContent": func(doc group) { doc["carbonContent"] = group{} },
		"specVersion":         func(doc group) { doc["scopeOfPcfForm"] = []group{{"specVersion": []string{"7.0.0"}}} },
		"companyInformation":  func(doc group) { doc["companyAndProductInformation"] = []group{{}} },
		"idAndVersion":        func(doc group) { doc["pcfAssessmentAndMethodology"] = []group{{}} },
		"productionStage":     func(doc group) { doc["productLifeCycleStagesAndEmissions"] = []group{{}} },
		"version 9.0.0: json": func(doc group) { doc["scopeOfPcfForm"] = "Cradle-to-gate" },
	} {
		var doc group
		if err := json.Unmarshal(housing(t, nil), &doc); err != nil {
			t.Fatal(err)
		}
		change(doc)
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(raw); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
