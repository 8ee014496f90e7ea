// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/PuerkitoBio/goquery"
	"github.com/lestrrat-go/jwx/v3/jwk"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/usecase"
)

// revised puts a use case into the cluster that gerd signs off: revision 1 he has, revision 2 waits for him. It returns what signs for him.
func (b *bundle) revised() (sign func(adminapi.SignOffClaims) string, thumb string, second usecase.Content) {
	b.Helper()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	key, err := jwk.Import(raw)
	must(err)
	half, err := key.PublicKey()
	must(err)
	public, err := json.Marshal(half)
	must(err)
	thumb, _, err = gate.PublicKey(public)
	must(err)
	sign = func(c adminapi.SignOffClaims) string {
		signed, err := gate.SignJWS(key, usecase.Type, c)
		must(err)
		return signed
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: namespace} }
	u := &cloudv1.UseCase{ObjectMeta: meta("footprint"), Spec: cloudv1.UseCaseSpec{Title: "Footprints", Profile: "automotive"}}
	objects := []ctrl.Object{u, &cloudv1.ApprovalKey{ObjectMeta: meta("key"), Spec: cloudv1.ApprovalKeySpec{Subject: "sub-gerd", Person: "gerd", Name: "Gerd Gerecht", Roles: []string{"governance-authority"}, Thumbprint: thumb,
		PublicKey: apiextensionsv1.JSON{Raw: public}}}}
	previous := ""
	for i, constraint := range []string{"", `,"constraint":[{"leftOperand":"purpose","operator":"eq","rightOperand":"recall"}]`} {
		second = usecase.Content{UseCase: "footprint", Number: i + 1, Previous: previous, Profile: "automotive", AssetType: "urn:pcf", Signers: []usecase.Person{{Person: "gerd"}},
			ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"` + constraint + `}]}`)}
		text, hash, err := usecase.Write(second)
		must(err)
		r := &cloudv1.UseCaseRevision{ObjectMeta: meta(fmt.Sprintf("footprint.%d", i+1)), Spec: cloudv1.UseCaseRevisionSpec{UseCase: "footprint", Number: i + 1, Hash: hash, Content: text, MadeBy: "Gerd Gerecht", MadeAt: metav1.NewTime(b.clock())}}
		status := &cloudv1.RevisionStatus{Number: i + 1, Hash: hash}
		if i == 0 {
			words, err := usecase.Explain(second, "en")
			must(err)
			r.Spec.SignOff = &cloudv1.RevisionSignOff{By: "Gerd Gerecht", At: r.Spec.MadeAt, Signers: []cloudv1.RevisionSigner{{ID: "sub-gerd", Name: "Gerd Gerecht", Keys: []string{string(public)}}},
				Signed: sign(adminapi.SignOffClaims{Signer: "sub-gerd", UseCase: "footprint", Number: 1, Hash: hash, Read: usecase.ReadHash(words), Language: "en", Signers: []string{thumb}, IssuedAt: b.clock().Unix()})}
			status.SignedBy, status.SignedAt = "Gerd Gerecht", &r.Spec.MadeAt
			u.Status.InForce = status
		}
		u.Status.Revision = status
		objects, previous = append(objects, r), hash
	}
	for _, o := range objects {
		must(b.config.Service.Client.Create(b.Context(), o))
	}
	return sign, thumb, second
}

func TestRevisionsAreReadByEverybodyAndSignedOffByWhomTheyWaitFor(t *testing.T) {
	b := setup(t)
	sign, thumb, second := b.revised()
	for name, c := range map[string]struct {
		organization, role string
		signs              bool
		refused            int
	}{
		"gerd":  {"", "governance-authority", true, http.StatusUnprocessableEntity},
		"greta": {"", "governance-authority", false, http.StatusForbidden}, // the use case names gerd
		"olga":  {"", "platform-operator", false, http.StatusForbidden},
		"berta": {"brandt-guss", "organization-admin", false, http.StatusForbidden},
		"vera":  {"brandt-guss", "viewer", false, http.StatusForbidden},
	} {
		b.browser = b.newBrowser()
		b.as(name, c.organization, c.role)
		list := b.get("/use-cases")
		if got := text(list, `tr[data-use-case="footprint"]`); list.status != http.StatusOK || !strings.Contains(got, "Footprints") || !strings.Contains(got, "2 Waits1 Signed off by Gerd Gerecht") {
			t.Errorf("%s sees the list as: %d %s", name, list.status, got)
		}
		p := b.get("/use-cases/footprint")
		if p.status != http.StatusOK || p.Find(".revision").Length() != 2 || (p.Find(".sign-off").Length() == 1) != c.signs || (p.Find("[data-approvals]").Length() == 1) != c.signs {
			t.Errorf("%s: %d, %d revisions, %d forms", name, p.status, p.Find(".revision").Length(), p.Find(".sign-off").Length())
		}
		if got := b.script("/use-cases/footprint/revisions/2/sign-off", `{"signed":"a.b.c"}`); got != c.refused {
			t.Errorf("what %s hands in is answered %d, want %d", name, got, c.refused)
		}
	}
	if p := b.get("/use-cases/nothing"); p.status != http.StatusNotFound {
		t.Errorf("a use case that does not exist: %d", p.status)
	}

	b.browser = b.newBrowser()
	b.as("gerd", "", "governance-authority")
	for language, want := range map[string][]string{
		"en": {"Revision 2 Waits", "What differs from revision 1", "No longer: Agreed by both: use is permitted without condition", "New: Agreed by both: purpose", "Waits for the sign-off of: gerd", "kaphera usecase sign-off footprint --revision 2 --language en"},
		"de": {"Revision 2 Wartet", "Was anders ist als in Revision 1", "Neu: Von beiden vereinbart: purpose", "Wartet auf die Freigabe durch: gerd", "--language de"},
	} {
		p := b.get("/use-cases/footprint", "Accept-Language", language)
		for _, w := range want {
			if got := text(p, `[data-revision="2"]`); !strings.Contains(got, w) {
				t.Errorf("%s lacks %q: %s", language, w, got)
			}
		}
		// What assets/approvals.js takes from the page and signs.
		form := p.Find("form.sign-off")
		var read, signers []string
		form.Find("[data-read] li").Each(func(_ int, li *goquery.Selection) { read = append(read, li.Text()) })
		form.Find("[data-signer]").Each(func(_ int, k *goquery.Selection) { signers = append(signers, k.Text()) })
		words, err := usecase.Explain(second, language)
		content, hash, err2 := usecase.Write(second)
		if err != nil || err2 != nil || !slices.Equal(read, words) || form.Find("[data-content]").Text() != content || !slices.Equal(signers, []string{thumb}) ||
			form.AttrOr("data-use-case", "") != "footprint" || form.AttrOr("data-revision", "") != strconv.Itoa(second.Number) || form.AttrOr("data-listed", "") != thumb {
			t.Errorf("%s: the form shows %q, %q, %q, not revision %s", language, read, form.Find("[data-content]").Text(), signers, hash)
		}
	}
	words, err := usecase.Explain(second, "de")
	if err != nil {
		t.Fatal(err)
	}
	_, hash, err := usecase.Write(second)
	if err != nil {
		t.Fatal(err)
	}
	signed := sign(adminapi.SignOffClaims{Signer: "sub-gerd", UseCase: "footprint", Number: 2, Hash: hash, Read: usecase.ReadHash(words), Language: "de", Signers: []string{thumb}, IssuedAt: b.clock().Unix()})
	for number, want := range map[string]int{"two": http.StatusNotFound, "3": http.StatusNotFound} {
		if got := b.script("/use-cases/footprint/revisions/"+number+"/sign-off", `{"signed":"`+signed+`"}`); got != want {
			t.Errorf("revision %s: %d, want %d", number, got, want)
		}
	}
	if got := b.script("/use-cases/footprint/revisions/2/sign-off", `{"signed":"`+signed+`"}`); got != http.StatusNoContent {
		t.Errorf("the sign-off is answered %d", got)
	}
	p := b.get("/use-cases/footprint")
	if got := text(p, `[data-revision="2"]`); !strings.Contains(got, "Revision 2 In force") || p.Find(".sign-off").Length() != 0 {
		t.Errorf("after the sign-off: %s", got)
	}
	if got := text(p, `[data-revision="1"]`); !strings.Contains(got, "Revision 1 Earlier") || !strings.Contains(got, "Signed off") {
		t.Errorf("the one before: %s", got)
	}
}
