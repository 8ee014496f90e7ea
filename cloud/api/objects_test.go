// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

const orgA = `{"displayName":"A"}`

func TestAnObjectIsCreatedReadReplacedAndRemoved(t *testing.T) {
	b := setup(t)
	created := decodeTo[Organization](t, b.want(http.StatusCreated, b.call(operator, "PUT", "/organizations/acme", wrap(orgA), "X-Kaphera-Manager", "cli")))
	if created.Name != "acme" || created.ManagedBy != "cli" || created.Revision == "" {
		t.Errorf("created %+v", created)
	}
	read := b.want(http.StatusOK, b.call(operator, "GET", "/organizations/acme", nil))
	if got := decodeTo[Organization](t, read); got.Spec.DisplayName != "A" || read.header.Get("ETag") != `"`+got.Revision+`"` {
		t.Errorf("read %+v with ETag %s", got, read.header.Get("ETag"))
	}
	replaced := decodeTo[Organization](t, b.want(http.StatusOK, b.call(operator, "PUT", "/organizations/acme", wrap(`{"displayName":"B"}`))))
	if replaced.Spec.DisplayName != "B" || replaced.Revision == created.Revision {
		t.Errorf("replaced %+v", replaced)
	}
	b.want(http.StatusNoContent, b.call(operator, "DELETE", "/organizations/acme", nil))
	gone := b.want(http.StatusNotFound, b.call(operator, "GET", "/organizations/acme", nil))
	if gone.problem.Code != CodeNotFound || !strings.Contains(gone.problem.Detail, `"acme"`) || gone.problem.Next == "" {
		t.Errorf("problem %+v", gone.problem)
	}
}

func TestAWriterIsToldOfChangesThatItHasNotSeen(t *testing.T) {
	b := setup(t)
	first := decodeTo[Organization](t, b.want(http.StatusCreated, b.call(operator, "PUT", "/organizations/acme", wrap(orgA))))
	b.want(http.StatusOK, b.call(operator, "PUT", "/organizations/acme", wrap(`{"displayName":"B"}`), "If-Match", `"`+first.Revision+`"`))
	for name, call := range map[string]func() answer{
		"by header": func() answer {
			return b.call(operator, "PUT", "/organizations/acme", wrap(`{"displayName":"C"}`), "If-Match", `"`+first.Revision+`"`)
		},
		"by body": func() answer {
			return b.call(operator, "PUT", "/organizations/acme", `{"revision":"`+first.Revision+`","spec":{"displayName":"C"}}`)
		},
		"when removing": func() answer {
			return b.call(operator, "DELETE", "/organizations/acme", nil, "If-Match", first.Revision)
		},
	} {
		if a := call(); a.status != http.StatusPreconditionFailed || !strings.Contains(a.problem.Detail, first.Revision) {
			t.Errorf("%s: got %d %s, want 412 with the revision", name, a.status, a.body)
		}
	}
	if a := b.call(operator, "PUT", "/organizations/acme", wrap(orgA), "If-None-Match", "*"); a.status != http.StatusConflict || a.problem.Code != CodeExists {
		t.Errorf("creating what exists: %d %s", a.status, a.body)
	}
	if a := b.call(operator, "PUT", "/organizations/gone", `{"revision":"1-abc","spec":{"displayName":"C"}}`); a.status != http.StatusNotFound {
		t.Errorf("replacing what is gone: %d %s", a.status, a.body)
	}
}

func TestWhatTerraformManagesIsNotChangedByAccident(t *testing.T) {
	b := setup(t)
	b.want(http.StatusCreated, b.call(both, "PUT", "/organizations/acme", wrap(orgA), "X-Kaphera-Manager", "terraform"))
	same := b.want(http.StatusOK, b.call(both, "PUT", "/organizations/acme", wrap(orgA), "X-Kaphera-Manager", "console"))
	if got := decodeTo[Organization](t, same); got.ManagedBy != "terraform" {
		t.Errorf("writing the same made it managed by %s", got.ManagedBy)
	}
	for name, a := range map[string]answer{
		"changed by the console": b.call(both, "PUT", "/organizations/acme", wrap(`{"displayName":"B"}`), "X-Kaphera-Manager", "console"),
		"changed by nobody":      b.call(both, "PUT", "/organizations/acme", wrap(`{"displayName":"B"}`)),
		"removed by the CLI":     b.call(both, "DELETE", "/organizations/acme", nil, "X-Kaphera-Manager", "cli"),
	} {
		if a.status != http.StatusConflict || a.problem.Code != CodeManagedElsewhere || a.problem.ManagedBy != "terraform" {
			t.Errorf("%s: got %d %s", name, a.status, a.body)
		}
	}
	if a := b.call(both, "PUT", "/organizations/acme", wrap(`{"displayName":"B"}`)); !strings.Contains(a.problem.Detail, "spec.displayName") {
		t.Errorf("the changed field is not named: %s", a.problem.Detail)
	}
	forced := decodeTo[Organization](t, b.want(http.StatusOK, b.call(both, "PUT", "/organizations/acme?force=true", wrap(`{"displayName":"B"}`), "X-Kaphera-Manager", "console")))
	if forced.Spec.DisplayName != "B" || forced.ManagedBy != "terraform" {
		t.Errorf("forced: %+v, want the change and terraform still the manager, so that its plan shows it", forced)
	}
	b.want(http.StatusOK, b.call(both, "PUT", "/organizations/acme", wrap(orgA), "X-Kaphera-Manager", "terraform"))
	b.want(http.StatusNoContent, b.call(both, "DELETE", "/organizations/acme", nil, "X-Kaphera-Manager", "terraform"))
}

func TestTerraformTakesOverWhatItImports(t *testing.T) {
	b := setup(t)
	b.want(http.StatusCreated, b.call(both, "PUT", "/organizations/acme", wrap(orgA), "X-Kaphera-Manager", "console"))
	if got := decodeTo[Organization](t, b.call(both, "PUT", "/organizations/acme", wrap(orgA), "X-Kaphera-Manager", "terraform")); got.ManagedBy != "terraform" {
		t.Errorf("managed by %s", got.ManagedBy)
	}
}

func TestADryRunJudgesAndChangesNothing(t *testing.T) {
	b := setup(t)
	a := b.want(http.StatusCreated, b.call(both, "PUT", "/participants/supplier?dryRun=true", wrap(participantSpec("brandt-guss", "brandt"))))
	if got := decodeTo[Participant](t, a); len(got.Warnings) != 3 || got.Spec.SelfCheck != "Enforce" {
		t.Errorf("got %d warnings %q and selfCheck %q; want organization, cell and profile missing, and the default filled in", len(got.Warnings), got.Warnings, got.Spec.SelfCheck)
	}
	b.want(http.StatusNotFound, b.call(both, "GET", "/participants/supplier", nil))
	written := b.want(http.StatusUnprocessableEntity, b.call(both, "PUT", "/participants/supplier", wrap(participantSpec("brandt-guss", "brandt"))))
	for _, field := range []string{"spec.organization", "spec.cell", "spec.profile"} {
		if !written.has(field, "create it first") {
			t.Errorf("%s is not told to be missing: %s", field, written.body)
		}
	}
	b.pilot()
	b.want(http.StatusOK, b.call(both, "PUT", "/organizations/brandt-guss?dryRun=true", wrap(`{"displayName":"X"}`), "X-Kaphera-Manager", "terraform"))
	if got := decodeTo[Organization](t, b.call(both, "GET", "/organizations/brandt-guss", nil)); got.Spec.DisplayName != "Brandt Guss GmbH" {
		t.Errorf("the dry run changed it to %s", got.Spec.DisplayName)
	}
	b.want(http.StatusNoContent, b.call(both, "DELETE", "/participants/oem?dryRun=true", nil, "X-Kaphera-Manager", "terraform"))
	b.want(http.StatusOK, b.call(both, "GET", "/participants/oem", nil))
}

func TestInvalidSpecsAreToldByField(t *testing.T) {
	b := setup(t)
	b.pilot()
	operand := func(old, replacement string) string { return strings.Replace(profileSpec, old, replacement, 1) }
	for name, c := range map[string]struct{ path, spec, location, words string }{
		"schema of the resource":          {"/participants/p", strings.Replace(participantSpec("brandt-guss", "p"), "BPNL0000000CAST1", "BPN1", 1), "spec.identity.businessPartnerNumber", "BPNL"},
		"unknown field":                   {"/organizations/acme", `{"displayName":"A","color":"red"}`, "spec.color", "unexpected property"},
		"missing field":                   {"/organizations/acme", `{}`, "spec", "displayName"},
		"immutable field":                 {"/participants/supplier", participantSpec("brandt-guss", "renamed"), "spec.identity.context", "cannot change"},
		"a context that is taken":         {"/participants/p", participantSpec("brandt-guss", "brandt"), "spec.identity.context", `"brandt" is taken in cell "shared"`},
		"a credential that nobody issues": {"/participants/p", strings.Replace(participantSpec("brandt-guss", "p"), "MembershipCredential", "GoldCredential", 1), "spec.credentials[0].type", "no issuer of profile"},
		"an operand that is not declared": {"/use-cases/u", useCaseSpec(strings.Replace(contractPolicy, "AttestationAge", "Colour", 1)), "spec.contractPolicy.permission[0].constraint[0]", "Colour"},
		"an operator that it has not":     {"/use-cases/u", useCaseSpec(strings.Replace(contractPolicy, `"lt"`, `"gt"`, 1)), "spec.contractPolicy.permission[0].constraint[0]", "gt"},
		"a policy that is none":           {"/use-cases/u", useCaseSpec(`{"@type":"Nonsense"}`), "spec.contractPolicy", ""},
		"an expression that is none":      {"/dataspace-profiles/p", operand("timestamp(credential", "timestamp((credential"), "spec.operands[0].expression", "not a valid CEL expression"},
		"an unknown onboarding check":     {"/dataspace-profiles/p", strings.Replace(profileSpec, "{", `{"onboardingChecks": ["Sympathy"], `, 1), "spec.onboardingChecks[0]", "Sympathy"},
		"an untrusted credential type":    {"/dataspace-profiles/p", operand(`"credential": "AttestationCredential"`, `"credential": "OtherCredential"`), "spec.operands[0].credential", "no issuer is trusted"},
		"a vocabulary that is in use":     {"/dataspace-profiles/automotive", operand("policy/AttestationAge", "policy/Renamed"), "spec.operands", `use case "carbon-footprint" would no longer be valid`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{c.path, c.path + "?dryRun=true"} {
				a := b.call(both, "PUT", path, wrap(c.spec), "X-Kaphera-Manager", "terraform")
				if a.status != http.StatusUnprocessableEntity || a.problem.Code != CodeInvalid || !a.has(c.location, c.words) || strings.Contains(string(a.body), "nil") {
					t.Errorf("PUT %s: got %d %s, want 422 with %s: %s", path, a.status, a.body, c.location, c.words)
				}
			}
		})
	}
}

func TestOnlyTheAuthorityVouches(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.want(http.StatusCreated, b.call(both, "PUT", "/dataspace-profiles/other", wrap(strings.Replace(strings.Replace(profileSpec, "auditor.example", "other.example", 1), `"auditor"`, `"other"`, 1))))
	spec := participantSpec("brandt-guss", "brandt")
	for field, changed := range map[string]string{
		"spec.credentials":     strings.Replace(spec, `"pilot"`, `"everything"`, 1),
		"spec.profile":         strings.Replace(spec, `"automotive"`, `"other"`, 1), // whose issuer has a credential of the same type
		"spec.furtherProfiles": strings.Replace(spec, `"cell"`, `"furtherProfiles":["other"],"cell"`, 1),
	} {
		for who, status := range map[string]int{"admin": http.StatusForbidden, "operator": http.StatusForbidden, "authority": http.StatusOK} {
			claims := map[string]map[string]any{"admin": brandt, "operator": operator, "authority": authority}[who]
			a := b.call(claims, "PUT", "/participants/supplier?force=true&dryRun=true", wrap(changed))
			if a.status != status || status == http.StatusForbidden && !a.has(field, "governance authority") {
				t.Errorf("%s changes %s: got %d %s, want %d", who, field, a.status, a.body, status)
			}
		}
	}
	// What the organization may decide itself.
	off := strings.Replace(spec, `"cell"`, `"selfCheck":"Off","cell"`, 1)
	b.want(http.StatusOK, b.call(brandt, "PUT", "/participants/supplier?force=true", wrap(off)))
	// A new participant of an organization starts without credentials.
	bare := `{"organization":"brandt-guss","cell":"shared","profile":"automotive","identity":{"context":"second","businessPartnerNumber":"BPNL0000000CAST2"}}`
	a := b.want(http.StatusCreated, b.call(brandt, "PUT", "/participants/second", wrap(bare)))
	if got := decodeTo[Participant](t, a); len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "MembershipCredential") {
		t.Errorf("warnings %q, want the credential that is missing", got.Warnings)
	}
}

func TestAnOrganizationReachesNothingOfOthers(t *testing.T) {
	b := setup(t)
	b.pilot()
	if got := decodeTo[List[Participant]](t, b.call(brandt, "GET", "/participants", nil)); len(got.Items) != 1 || got.Items[0].Name != "supplier" {
		t.Errorf("sees %+v", got.Items)
	}
	if got := decodeTo[List[Organization]](t, b.call(viewer, "GET", "/organizations", nil)); len(got.Items) != 1 || got.Items[0].Name != "brandt-guss" {
		t.Errorf("sees %+v", got.Items)
	}
	for call, status := range map[string]int{
		"GET /participants/oem": http.StatusNotFound, "DELETE /participants/oem": http.StatusNotFound, "GET /organizations/rheintal-motoren": http.StatusNotFound,
		"GET /participants/oem/assets": http.StatusNotFound, "GET /participants/oem/negotiations/n": http.StatusNotFound, "GET /participants/oem/negotiations/n/events": http.StatusNotFound,
		"GET /participants/oem/transfers/t/data": http.StatusNotFound, "GET /participants/oem/catalog?counterparty=supplier": http.StatusNotFound,
	} {
		method, path, _ := strings.Cut(call, " ")
		if a := b.call(brandt, method, path, nil); a.status != status {
			t.Errorf("%s: got %d, want %d", call, a.status, status)
		}
	}
	for call, body := range map[string]string{
		"PUT /participants/oem":               wrap(participantSpec("brandt-guss", "rheintal")),
		"PUT /participants/new":               wrap(strings.Replace(participantSpec("rheintal-motoren", "new"), "credentials", "credentials", 1)),
		"PUT /organizations/rheintal-motoren": wrap(orgA),
		"PUT /organizations/new":              wrap(orgA),
		"POST /participants/oem/negotiations": `{"counterparty":"supplier","offerId":"o"}`,
		"PUT /participants/oem/secrets/s":     `{"value":"x"}`,
	} {
		method, path, _ := strings.Cut(call, " ")
		if a := b.call(brandt, method, path, body); a.status != http.StatusForbidden && a.status != http.StatusNotFound && a.status != http.StatusConflict {
			t.Errorf("%s: got %d %s, want it refused", call, a.status, a.body)
		}
	}
	if got := b.connector.Requests(); len(got) > 0 {
		t.Errorf("the connector was called: %v", got)
	}
	var p cloudv1.Participant
	if err := kube.Get(t.Context(), ctrl.ObjectKey{Namespace: b.namespace, Name: "oem"}, &p); err != nil || p.Spec.Organization != "rheintal-motoren" {
		t.Errorf("the other's participant is now %+v, %v", p.Spec, err)
	}
}

// tier1Cell is dedicated to an organization.
func tier1Cell(organization string) string {
	return `{"type":"dedicated","organization":"` + organization + `","hostname":"tier1.example","operatingParty":"Kaphera Cloud","quota":{"cpu":"1","memory":"4Gi"},
	  "access":{"operators":{"groups":["tier1-infrastructure"]}}}`
}

// TestAHostNameInADID is not for whoever makes a participant to choose.
func TestAHostNameInADID(t *testing.T) {
	b := setup(t)
	b.pilot()
	spec := wrap(strings.Replace(participantSpec("brandt-guss", "own"), `"identity":{`, `"identity":{"hostname":"former.example",`, 1))
	for _, path := range []string{"/participants/own", "/participants/supplier?force=true"} {
		if a := b.call(authority, "PUT", path, spec); a.status != http.StatusForbidden || !a.has("spec.identity.hostname", "only a platform operator") {
			t.Errorf("PUT %s: %d %s", path, a.status, a.body)
		}
	}
	b.want(http.StatusCreated, b.call(both, "PUT", "/participants/own", spec))
	b.want(http.StatusOK, b.call(authority, "PUT", "/participants/own?force=true", spec)) // as it is
}

func TestADedicatedCellIsForOneOrganization(t *testing.T) {
	b := setup(t)
	b.pilot()
	if a := b.call(both, "PUT", "/cells/tier1", wrap(tier1Cell("nobody"))); !a.has("spec.organization", `there is no organization "nobody"`) {
		t.Errorf("for an organization that is not there: %d %s", a.status, a.body)
	}
	if a := b.call(both, "PUT", "/cells/tier1", wrap(strings.Replace(tier1Cell("brandt-guss"), "tier1.example", "shared.example", 1))); !a.has("spec.hostname", `that of cell "shared"`) {
		t.Errorf("with another cell's host name: %d %s", a.status, a.body)
	}
	b.want(http.StatusCreated, b.call(both, "PUT", "/cells/tier1", wrap(tier1Cell("brandt-guss"))))
	in := func(organization, context string) string {
		return wrap(strings.Replace(participantSpec(organization, context), `"cell":"shared"`, `"cell":"tier1"`, 1))
	}
	for _, path := range []string{"/participants/new?dryRun=true", "/participants/new", "/participants/oem?force=true"} {
		a := b.call(both, "PUT", path, in("rheintal-motoren", "rheintal"))
		if a.status != http.StatusUnprocessableEntity || !a.has("spec.cell", `cell "tier1" is for participants of organization "brandt-guss" alone`) {
			t.Errorf("PUT %s: %d %s", path, a.status, a.body)
		}
	}
	b.want(http.StatusCreated, b.call(both, "PUT", "/participants/own", in("brandt-guss", "own")))
	issuer := b.call(both, "PUT", "/dataspace-profiles/other", wrap(strings.Replace(profileSpec, `"cell": "shared"`, `"cell": "tier1"`, 1)))
	if issuer.status != http.StatusUnprocessableEntity || !issuer.has("spec.issuers[0].cell", "name a shared cell") {
		t.Errorf("an issuer: %d %s", issuer.status, issuer.body)
	}
	// What kubectl writes past the check reaches no connector: not the context of the organization's own participant either.
	foreign := &cloudv1.Participant{ObjectMeta: metav1.ObjectMeta{Namespace: b.namespace, Name: "foreign"}, Spec: cloudv1.ParticipantSpec{
		Organization: "rheintal-motoren", Cell: "tier1", Profile: "automotive", Identity: cloudv1.Identity{Context: "own", BusinessPartnerNumber: "BPNL00000000OEM1"},
	}}
	if err := kube.Create(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	plain := func(cell string) string {
		return wrap(`{"organization":"rheintal-motoren","cell":"` + cell + `","profile":"automotive","identity":{"context":"own","businessPartnerNumber":"BPNL0000000CAST1"}}`)
	}
	for name, a := range map[string]answer{
		"a plan":    b.call(renate, "PUT", "/participants/new?dryRun=true", plain("tier1")),
		"a write":   b.call(renate, "PUT", "/participants/new", plain("tier1")),
		"a read":    b.call(renate, "GET", "/participants/foreign/assets", nil),
		"no cell's": b.call(renate, "PUT", "/participants/new?dryRun=true", plain("none")),
	} {
		if !strings.Contains(string(a.body), "there is no cell") || strings.Contains(string(a.body), "brandt-guss") {
			t.Errorf("%s shows another organization's cell: %d %s", name, a.status, a.body)
		}
	}
	for _, path := range []string{"/participants/foreign/assets", "/participants/foreign/audit/heads"} {
		if a := b.call(operator, "GET", path, nil); a.status != http.StatusConflict || !strings.Contains(a.problem.Detail, `"brandt-guss" alone`) {
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
	}
	if got := b.connector.Requests(); len(got) > 0 {
		t.Errorf("the connector was called: %v", got)
	}
}

func TestADedicatedCellIsShownToItsOrganization(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.want(http.StatusCreated, b.call(both, "PUT", "/cells/tier1", wrap(tier1Cell("rheintal-motoren"))))
	if got := decodeTo[List[Cell]](t, b.call(brandt, "GET", "/cells", nil)); len(got.Items) != 1 || got.Items[0].Name != "shared" {
		t.Errorf("another organization sees %+v", got.Items)
	}
	b.want(http.StatusNotFound, b.call(brandt, "GET", "/cells/tier1", nil))
	if got := decodeTo[List[Cell]](t, b.call(authority, "GET", "/cells", nil)); len(got.Items) != 2 {
		t.Errorf("the authority sees %+v", got.Items)
	}
}

// Whoever describes an on-premise cell, such as Terraform, does not know the key of the company's agent, and does not take it away.
func TestAnOnPremiseCellKeepsTheKeyOfItsAgent(t *testing.T) {
	b := setup(t)
	b.pilot()
	spec := func(more string) any {
		return wrap(`{"type":"on-premise","organization":"rheintal-motoren","hostname":"dataspace.rheintal.example","operatingParty":"Rheintal Motoren",
		  "database":{"host":"db.rheintal.example","name":"dataspace","ownerSecret":{"name":"owner"}},
		  "vault":{"address":"https://vault.rheintal.example","prefix":"dataspace","auth":{"method":"Kubernetes"}}` + more + `}`)
	}
	if a := b.call(operator, "PUT", "/cells/oem", wrap(`{"type":"on-premise","organization":"rheintal-motoren","hostname":"a.example","operatingParty":"x"}`)); a.status != http.StatusUnprocessableEntity || !strings.Contains(string(a.body), "own PostgreSQL in database") {
		t.Errorf("without a database: %d %s", a.status, a.body)
	}
	first, second := "U"+strings.Repeat("A", 55), "U"+strings.Repeat("B", 55)
	b.want(http.StatusCreated, b.call(operator, "PUT", "/cells/oem", spec(`,"agentKey":"`+first+`"`)))
	b.want(http.StatusOK, b.call(operator, "PUT", "/cells/oem", spec(`,"replicas":2`)))
	if got := decodeTo[Cell](t, b.call(renate, "GET", "/cells/oem", nil)); got.Spec.AgentKey != first || *got.Spec.Replicas != 2 {
		t.Errorf("the cell is %+v", got.Spec)
	}
	b.want(http.StatusOK, b.call(operator, "PUT", "/cells/oem", spec(`,"agentKey":"`+second+`"`)))
	if got := decodeTo[Cell](t, b.call(renate, "GET", "/cells/oem", nil)); got.Spec.AgentKey != second {
		t.Errorf("the key is still %s", got.Spec.AgentKey)
	}
	b.want(http.StatusNotFound, b.call(brandt, "GET", "/cells/oem", nil))
}

func TestListsComeInPages(t *testing.T) {
	b := setup(t)
	const n = 7
	for i := range n {
		b.want(http.StatusCreated, b.call(operator, "PUT", fmt.Sprintf("/organizations/org-%d", i), wrap(orgA)))
	}
	var seen []string
	next := ""
	for {
		l := decodeTo[List[Organization]](t, b.want(http.StatusOK, b.call(operator, "GET", "/organizations?limit=3&after="+next, nil)))
		for _, o := range l.Items {
			seen = append(seen, o.Name)
		}
		if next = l.Next; next == "" {
			break
		}
	}
	if len(seen) != n || seen[0] != "org-0" || seen[n-1] != "org-6" {
		t.Errorf("saw %v", seen)
	}
	b.want(http.StatusUnprocessableEntity, b.call(operator, "GET", "/organizations?limit=9999", nil))
}

// A participant moves between cells that the platform runs, and is told why not to others.
func TestAParticipantMovesToCellsThatCanHaveIt(t *testing.T) {
	b := setup(t)
	b.pilot()
	b.want(http.StatusCreated, b.call(both, "PUT", "/cells/tier1", wrap(tier1Cell("brandt-guss"))))
	b.want(http.StatusCreated, b.call(both, "PUT", "/cells/foreign", wrap(strings.Replace(tier1Cell("rheintal-motoren"), "tier1.example", "foreign.example", 1))))
	b.want(http.StatusCreated, b.call(both, "PUT", "/cells/company", wrap(onPremiseSpec)))
	in := func(cell, context string) string {
		return wrap(strings.Replace(participantSpec("brandt-guss", context), `"cell":"shared"`, `"cell":"`+cell+`"`, 1))
	}
	is := func(cell, hostname string, move *cloudv1.ParticipantMove) {
		b.report("supplier", func(s *cloudv1.ParticipantStatus) {
			s.Cell, s.Hostname, s.Move, s.DID = cell, hostname, move, "did:web:"+hostname+":brandt"
		})
	}
	refused := func(what, cell, location, words string) {
		t.Helper()
		for _, path := range []string{"/participants/supplier?force=true&dryRun=true", "/participants/supplier?force=true"} {
			if a := b.call(both, "PUT", path, in(cell, "brandt")); a.status != http.StatusUnprocessableEntity || !a.has(location, words) {
				t.Errorf("%s: %d %s", what, a.status, a.body)
			}
		}
	}
	is("shared", "shared.example", nil)
	refused("to an on-premise cell", "company", "spec.cell", `reaches neither the database nor the Vault of an on-premise cell. Keep "shared"`)
	refused("to another organization's", "foreign", "spec.cell", `for participants of organization "rheintal-motoren" alone`)
	if a := b.call(both, "PUT", "/participants/supplier?force=true", in("nowhere", "brandt")); !a.has("spec.cell", "create it first") {
		t.Errorf("to one that is not there: %d %s", a.status, a.body)
	}
	b.want(http.StatusCreated, b.call(both, "PUT", "/participants/namesake", in("tier1", "brandt")))
	refused("to where another one has its context", "tier1", "spec.identity.context", `"brandt" is taken in cell "tier1"`)
	b.want(http.StatusNoContent, b.call(both, "DELETE", "/participants/namesake", nil))
	b.want(http.StatusOK, b.call(both, "PUT", "/participants/supplier?force=true", in("tier1", "brandt")))

	is("shared", "shared.example", &cloudv1.ParticipantMove{From: "shared", To: "tier1", Phase: cloudv1.MoveStopping, Since: metav1.Now()})
	b.want(http.StatusCreated, b.call(both, "PUT", "/cells/third", wrap(strings.Replace(tier1Cell("brandt-guss"), "tier1.example", "third.example", 1))))
	refused("elsewhere on its way", "third", "spec.cell", `on its way from cell "shared" to "tier1"`)
	b.want(http.StatusOK, b.call(both, "PUT", "/participants/supplier?force=true&dryRun=true", in("shared", "brandt")))
	for _, cell := range []string{"shared", "tier1"} {
		if a := b.call(both, "PUT", "/participants/late", in(cell, "brandt")); !a.has("spec.identity.context", "is taken") {
			t.Errorf("its context while it is on its way, in %s: %d %s", cell, a.status, a.body)
		}
	}
	is("tier1", "shared.example", nil)
	if a := b.call(both, "PUT", "/participants/late", in("shared", "brandt")); !a.has("spec.identity.context", "is taken") {
		t.Errorf("its DID when it has moved: %d %s", a.status, a.body)
	}
	b.want(http.StatusOK, b.call(both, "PUT", "/participants/supplier?force=true", in("shared", "brandt")))
}
