// SPDX-License-Identifier: Apache-2.0

// Package pcf makes and reads sample carbon footprints in the Catena-X model urn:samm:io.catenax.pcf:9.0.0#Pcf. The values are made
// up for a gearbox housing cast in aluminium; every document has random digits of its own, so that its arrival can be recognised.
// It is no general library of the model.
package pcf

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// SpecVersion is the data model that documents follow.
const SpecVersion = "urn:io.catenax.pcf:datamodel:version:9.0.0"

// Supplier is who declares the footprint.
type Supplier struct {
	Name string
	BPN  string // BPNL and 12 characters
}

// Attestation is the conformance attestation that a document mentions; nil leaves the group out.
type Attestation struct {
	Provider    string
	ProviderBPN string
	CompletedAt time.Time // zero leaves the date out, which counts as not attested
}

type group = map[string]any

// GearboxHousing makes the footprint of one kilogram of a cast gearbox housing, with a fresh assessment id and six random decimals in
// pcfExcludingBiogenicUptake.
func GearboxHousing(s Supplier, a *Attestation, now time.Time) ([]byte, error) {
	now = now.UTC().Truncate(time.Second)
	// All amounts are millionths: of a kilogram CO2e per kilogram, of a kilogram, of a percent.
	excluding := 6_100_000 + below(900_000)
	const biogenic, landUse, aircraft, uptake = 41_300, 8_900, 1_200, -52_600
	fossil := excluding - biogenic - landUse - aircraft
	doc := group{
		"scopeOfPcfForm": []group{{"partialFullPcf": "Cradle-to-gate", "specVersion": []string{SpecVersion}}},
		"companyAndProductInformation": []group{{
			"companyInformation": []group{{"companyName": s.Name, "companyIds": []string{"urn:" + s.BPN}}},
			"productInformation": []group{{
				"productNameCompany": "Gearbox housing GH-4711, die-cast", "productIds": []string{"urn:kaphera:example:product-id:GH-4711"},
				"productClassifications": []string{"urn:eclass:27-14-32-02"}, "declaredUnitOfMeasurement": "kilogram", "declaredUnitAmount": number(1_000_000),
				"productMassPerDeclaredUnit": number(1_000_000),
				"productDescription":         "Aluminium high-pressure die casting EN AC-46000, deburred and machined, 11.4 kg each",
			}},
		}},
		"pcfAssessmentAndMethodology": []group{{
			"pcfAssessmentInformation": []group{{
				"idAndVersion": []group{{"id": uuid(), "version": 0, "status": "Active", "retroOrProspectivePcfType": "Retrospective PCF", "precedingPfIds": []group{}}},
				"geography":    []group{{"geographyCountry": "DE", "geographyCountrySubdivision": "DE-BW", "geographyRegionOrSubregion": "Europe"}},
				"time": []group{{"referencePeriodStart": stamp(now.AddDate(-1, -3, 0)), "referencePeriodEnd": stamp(now.AddDate(0, -3, 0)), "created": stamp(now),
					"validityPeriodStart": stamp(now), "validityPeriodEnd": stamp(now.AddDate(2, 0, 0))}},
				"boundarySpecifications": []group{{"exemptedEmissionsPercent": number(1_500_000), "exemptedEmissionsDescription": "Release agents and cleaning cloths"}},
				"technology":             []group{{"ccsTechnologicalCO2CaptureIncluded": false, "boundaryProcessesDescription": "Melting by natural gas, die casting and machining by grid electricity"}},
			}},
			"dataSourcesAndQuality": []group{{"primaryDataShare": number(62_400_000), "secondaryEmissionFactorSources": []string{"ecoinvent 3.10"},
				"technologicalDQR": number(1_600_000), "temporalDQR": number(1_400_000), "geographicalDQR": number(1_800_000)}},
			"verificationAndCertificationShares": []group{{"programCertificationShare": number(100_000_000), "productVerificationShare1stParty": number(0),
				"productVerificationShare2ndParty": number(0), "productVerificationShare3rdParty": number(48_000_000)}},
			"pcfMethodology": []group{{
				"standards":                        []group{{"crossSectoralStandards": []string{"ISO 14067"}, "productOrSectorSpecificRules": []string{"urn:kaphera:example:PCR:aluminium-castings:version:1.2"}}},
				"gwpCharacterizationFactorDetails": []group{{"ipccCharacterizationFactors": "AR6"}},
				"massBalancingInformation":         []group{{"massBalancingUsed": false}},
				"allocationInForeground":           []group{{"allocationRulesDescription": "By mass within a melt", "allocationRecycledCarbon": "cut-off", "allocationWasteIncineration": "cut-off"}},
			}},
		}},
		"general": []group{{"pcfLegalStatement": "Sample data of a demonstration; no statement about a real product.", "comment": "41 % secondary aluminium in the melt"}},
		"carbonContent": []group{{"carbonContentTotal": number(0), "fossilCarbonContent": number(0), "biogenicCarbonContent": number(0),
			"recycledCarbonContent": number(0), "packagingBiogenicCarbonContent": number(18_000)}},
		"productLifeCycleStagesAndEmissions": []group{{
			"productionStage": []group{{"pcfExcludingBiogenicUptake": number(excluding), "pcfIncludingBiogenicUptake": number(excluding + uptake),
				"fossilGhgEmissions": number(fossil), "biogenicNonCO2Emissions": number(biogenic), "biogenicCO2Uptake": number(uptake),
				"landUseChangeGhgEmissions": number(landUse), "landManagementBiogenicCO2Emissions": number(0), "landManagementBiogenicCO2Removals": number(0),
				"aircraftGhgEmissions": number(aircraft)}},
			"packagingStage":    []group{{"packagingEmissionsIncluded": true, "packagingPcfExcludingBiogenicUptake": number(73_000), "packagingPcfIncludingBiogenicUptake": number(20_400)}},
			"distributionStage": []group{{"distributionStageIncluded": false}},
		}},
	}
	if a != nil {
		att := group{"attestationType": "PCF Program Certification", "standardName": "Catena-X Product Carbon Footprint Rulebook",
			"attestationStandard": "PCF Verification and Program Certification Framework", "attestationOfConformanceId": uuid(),
			"providerName": a.Provider, "providerId": "urn:bpn:" + a.ProviderBPN}
		if !a.CompletedAt.IsZero() {
			att["completedAt"] = stamp(a.CompletedAt)
		}
		doc["attestationOfConformance"] = []group{att}
	}
	return json.MarshalIndent(doc, "", "  ")
}

// number writes millionths with six decimals.
func number(millionths int) json.Number {
	sign := ""
	if millionths < 0 {
		sign, millionths = "-", -millionths
	}
	return json.Number(fmt.Sprintf("%s%d.%06d", sign, millionths/1_000_000, millionths%1_000_000))
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func below(n uint32) int {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return int(binary.BigEndian.Uint32(b[:]) % n)
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Summary is what people look at first.
type Summary struct {
	AssessmentID string
	Company      string
	Product      string
	Footprint    string // kg CO2e per declared unit without biogenic uptake, as it stands in the document
	Unit         string
	PrimaryShare string // percent
	AttestedBy   string // empty when not attested
	AttestedAt   string // RFC 3339; empty when absent
}

// required are the groups that every document must have.
var required = []string{"scopeOfPcfForm", "companyAndProductInformation", "pcfAssessmentAndMethodology", "general", "carbonContent", "productLifeCycleStagesAndEmissions"}

// Read checks that a document is a footprint of version 9.0.0, as far as this package knows the model, and sums it up.
func Read(raw []byte) (Summary, error) {
	var doc struct {
		Scope []struct {
			SpecVersion []string `json:"specVersion"`
		} `json:"scopeOfPcfForm"`
		Company []struct {
			Company []struct {
				Name string   `json:"companyName"`
				IDs  []string `json:"companyIds"`
			} `json:"companyInformation"`
			Product []struct {
				Name string      `json:"productNameCompany"`
				IDs  []string    `json:"productIds"`
				Unit string      `json:"declaredUnitOfMeasurement"`
				Mass json.Number `json:"productMassPerDeclaredUnit"`
			} `json:"productInformation"`
		} `json:"companyAndProductInformation"`
		Assessment []struct {
			Information []struct {
				ID []struct {
					ID string `json:"id"`
				} `json:"idAndVersion"`
			} `json:"pcfAssessmentInformation"`
			Quality []struct {
				PrimaryShare json.Number `json:"primaryDataShare"`
			} `json:"dataSourcesAndQuality"`
		} `json:"pcfAssessmentAndMethodology"`
		Stages []struct {
			Production []struct {
				Including json.Number `json:"pcfIncludingBiogenicUptake"`
				Excluding json.Number `json:"pcfExcludingBiogenicUptake"`
			} `json:"productionStage"`
		} `json:"productLifeCycleStagesAndEmissions"`
		Attestation []struct {
			Provider    string `json:"providerName"`
			CompletedAt string `json:"completedAt"`
		} `json:"attestationOfConformance"`
	}
	var groups map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(raw, &groups), json.Unmarshal(raw, &doc)); err != nil {
		return Summary{}, fmt.Errorf("not a carbon footprint of version 9.0.0: %w", err)
	}
	for _, g := range required {
		var items []group
		if err := json.Unmarshal(groups[g], &items); err != nil || len(items) == 0 {
			return Summary{}, fmt.Errorf("not a carbon footprint of version 9.0.0: the group %s is missing or no list", g)
		}
	}
	missing := func(what string) (Summary, error) {
		return Summary{}, fmt.Errorf("not a complete carbon footprint: %s is missing", what)
	}
	c, a, s := doc.Company[0], doc.Assessment[0], doc.Stages[0]
	switch {
	case len(doc.Scope[0].SpecVersion) == 0 || doc.Scope[0].SpecVersion[0] != SpecVersion:
		return Summary{}, fmt.Errorf("specVersion %v is not %s", doc.Scope[0].SpecVersion, SpecVersion)
	case len(c.Company) == 0 || c.Company[0].Name == "" || len(c.Company[0].IDs) == 0:
		return missing("companyInformation with companyName and companyIds")
	case len(c.Product) == 0 || c.Product[0].Name == "" || len(c.Product[0].IDs) == 0 || c.Product[0].Unit == "" || c.Product[0].Mass == "":
		return missing("productInformation with name, ids, unit and mass")
	case len(a.Information) == 0 || len(a.Information[0].ID) == 0 || a.Information[0].ID[0].ID == "":
		return missing("pcfAssessmentInformation.idAndVersion.id")
	case len(s.Production) == 0 || s.Production[0].Excluding == "" || s.Production[0].Including == "":
		return missing("productionStage with both footprints")
	}
	out := Summary{AssessmentID: a.Information[0].ID[0].ID, Company: c.Company[0].Name, Product: c.Product[0].Name, Unit: c.Product[0].Unit, Footprint: s.Production[0].Excluding.String()}
	if len(a.Quality) > 0 {
		out.PrimaryShare = a.Quality[0].PrimaryShare.String()
	}
	if len(doc.Attestation) > 0 {
		out.AttestedBy, out.AttestedAt = doc.Attestation[0].Provider, doc.Attestation[0].CompletedAt
	}
	return out, nil
}
