// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/PuerkitoBio/goquery"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/connector/adminapi"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

const namespace = "kaphera-system"

// bundle is a console with a browser that trusts it and the identity provider.
type bundle struct {
	*testing.T
	issuer    *cloudtest.Issuer
	connector *cloudtest.Connector
	server    *httptest.Server
	browser   *http.Client
	config    Config

	mu    sync.Mutex
	now   time.Time
	pages http.Handler
}

func (b *bundle) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bundle) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

func objects(now time.Time) []ctrl.Object {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: namespace} }
	heard := metav1.NewTime(now)
	participant := func(name, org, did string) *cloudv1.Participant {
		return &cloudv1.Participant{
			ObjectMeta: meta(name), Spec: cloudv1.ParticipantSpec{Organization: org, Cell: "shared", Profile: "automotive", Identity: cloudv1.Identity{Context: org, BusinessPartnerNumber: "BPNL0000000CAST1"}},
			Status: cloudv1.ParticipantStatus{
				DID: did, Contracts: &edc.ContractStatus{Active: 3}, Checks: []cloudv1.OnboardingCheck{{Name: "DIDReachable", State: "Passed"}},
				Credentials: []edc.CredentialStatus{{Type: "MembershipCredential", Issuer: "did:web:authority.example:issuer", State: "Revoked", Detail: "on request", Remedy: adminapi.Remedies[adminapi.CredentialRevoked]}},
				Conditions:  []metav1.Condition{{Type: cloudv1.ConditionActive, Status: metav1.ConditionTrue}},
			},
		}
	}
	return []ctrl.Object{
		&corev1.ConfigMap{ObjectMeta: meta(LogOuts)},
		&cloudv1.Cell{ObjectMeta: meta("shared"), Spec: cloudv1.CellSpec{Type: "shared", OperatingParty: "Kaphera Cloud"}, Status: cloudv1.CellStatus{LastHeard: &heard}},
		&cloudv1.UseCaseRevision{ObjectMeta: meta("carbon-footprint.1"), Spec: cloudv1.UseCaseRevisionSpec{UseCase: "carbon-footprint", Number: 1,
			Content: `{"useCase":"carbon-footprint","revision":1,"profile":"automotive","assetType":"a","contractPolicy":{"@type":"Set","permission":[{"action":"use"}]}}`}},
		&cloudv1.Organization{ObjectMeta: meta("brandt-guss"), Spec: cloudv1.OrganizationSpec{DisplayName: "Brandt Guss GmbH"}},
		participant("supplier", "brandt-guss", "did:web:shared.example:brandt-guss"), participant("oem", "rheintal-motoren", "did:web:shared.example:rheintal-motoren"),
	}
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{T: t, issuer: cloudtest.NewIssuer(t), connector: cloudtest.NewConnector(t), now: time.Now().UTC().Truncate(time.Second)}
	b.issuer.Now = b.clock
	scheme := runtime.NewScheme()
	if err := errors.Join(cloudv1.AddToScheme(scheme), corev1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	// The console only reads; the Cloud API's own tests write to a real API server.
	kube := kubefake.NewClientBuilder().WithScheme(scheme).WithObjects(objects(b.now)...).Build()
	log := slog.New(slog.DiscardHandler)
	identity := api.NewOIDC(b.issuer.URL, cloudtest.Audience, b.issuer.TLS.Client(), b.clock)
	if err := identity.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	service := api.New(api.Service{Client: kube, Namespace: namespace, Cells: b.connector, PollInterval: time.Millisecond, Now: b.clock, Log: log, Info: api.Info{Issuer: b.issuer.URL}})
	b.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		pages := b.pages
		b.mu.Unlock()
		pages.ServeHTTP(w, r)
	}))
	b.config = Config{Service: service, Identity: identity, URL: "https://" + b.server.Listener.Addr().String(), ClientID: "kaphera-console", ClientSecret: "a secret", Now: b.clock, Log: log}
	b.restart()
	b.server.StartTLS()
	t.Cleanup(b.server.Close)
	b.browser = b.newBrowser()
	return b
}

// restart makes the console anew, as another process of the same configuration.
func (b *bundle) restart() {
	b.Helper()
	pages, err := New(b.config)
	if err != nil {
		b.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pages = pages
}

func (b *bundle) newBrowser() *http.Client {
	b.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.Fatal(err)
	}
	transport := b.server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs.AddCert(b.issuer.TLS.Certificate())
	return &http.Client{Jar: jar, Transport: transport}
}

// as logs in.
func (b *bundle) as(name, organization string, roles ...string) *bundle {
	b.Helper()
	b.issuer.LogIn(cloudtest.Claims(name, organization, roles...))
	if p := b.get("/login"); p.status != http.StatusOK {
		b.Fatalf("logging in: %d %s", p.status, p.Text())
	}
	return b
}

type page struct {
	*goquery.Document
	status int
	header http.Header
	url    *url.URL
}

func (b *bundle) send(r *http.Request) page {
	b.Helper()
	resp, err := b.browser.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	doc, err := goquery.NewDocumentFromReader(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return page{doc, resp.StatusCode, resp.Header, resp.Request.URL}
}

func (b *bundle) request(method, path string, form url.Values, headers ...string) *http.Request {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), method, b.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (b *bundle) get(path string, headers ...string) page {
	b.Helper()
	return b.send(b.request(http.MethodGet, path, nil, headers...))
}

func (b *bundle) post(path string, form url.Values) page {
	b.Helper()
	return b.send(b.request(http.MethodPost, path, form, "Origin", b.server.URL, "Sec-Fetch-Site", "same-origin"))
}

func text(p page, selector string) string {
	return strings.Join(strings.Fields(p.Find(selector).Text()), " ")
}

func TestLoggingInLeadsBackToThePageThatWasAskedFor(t *testing.T) {
	b := setup(t)
	b.issuer.LogIn(cloudtest.Claims("olga", "", "platform-operator"))
	p := b.get("/participants/supplier")
	if p.status != http.StatusOK || p.url.Path != "/participants/supplier" || text(p, "h1") != "supplier" || !strings.Contains(text(p, ".who"), "olga") {
		t.Fatalf("%d at %s: %s", p.status, p.url, p.Text())
	}
	for _, c := range b.browser.Jar.Cookies(p.url) {
		if c.Name != sessionCookie {
			t.Errorf("a cookie %s is left over", c.Name)
		}
		if strings.Contains(c.Value, "olga") {
			t.Error("the session can be read by whoever has the cookie")
		}
	}
}

func TestTheSessionCookieIsForThisHostOverTLSAndNotForScripts(t *testing.T) {
	b := setup(t)
	b.issuer.LogIn(cloudtest.Claims("olga", "", "platform-operator"))
	b.browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.Response != nil {
			for _, c := range r.Response.Cookies() {
				if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || !strings.HasPrefix(c.Name, "__Host-") {
					t.Errorf("cookie %+v", c)
				}
			}
		}
		return nil
	}
	b.get("/login")
}

func TestLogInsThatAreRefused(t *testing.T) {
	for name, tamper := range map[string]func(b *bundle) page{
		"with another's state": func(b *bundle) page {
			b.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			b.get("/login")
			return b.get("/callback?code=x&state=forged")
		},
		"in another browser": func(b *bundle) page { return b.get("/callback?code=x&state=y") },
		"that took too long": func(b *bundle) page {
			b.browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
				if r.URL.Path == "/callback" {
					b.pass(loginMinutes*time.Minute + time.Second)
				}
				return nil
			}
			return b.get("/login")
		},
		"by the identity provider": func(b *bundle) page {
			b.browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
				if q := r.URL.Query(); r.URL.Path == "/callback" {
					q.Set("code", "used")
					r.URL.RawQuery = q.Encode()
				}
				return nil
			}
			return b.get("/login")
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.issuer.LogIn(cloudtest.Claims("olga", "", "platform-operator"))
			p := tamper(b)
			if p.status != http.StatusBadRequest || p.Find(".problem .detail").Length() != 1 {
				t.Errorf("%d: %s", p.status, p.Text())
			}
			for _, c := range b.browser.Jar.Cookies(p.url) {
				if c.Name == sessionCookie {
					t.Error("there is a session all the same")
				}
			}
		})
	}
}

func TestRedirectsStayInTheConsole(t *testing.T) {
	for to, want := range map[string]string{
		"/participants/x?a=b": "/participants/x?a=b", "": "/", "https://evil.example": "/", "//evil.example": "/", `/\evil.example`: "/", "evil": "/", "/%2f/evil": "/%2f/evil",
	} {
		if got := local(to); got != want {
			t.Errorf("local(%q) = %q, want %q", to, got, want)
		}
	}
}

func TestAnExpiredSessionIsRenewedAndAnEndedOneIsNot(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	before := b.issuer.Logins()
	b.pass(10 * time.Minute)
	if p := b.get("/status"); p.status != http.StatusOK || b.issuer.Logins() != before+1 {
		t.Errorf("%d after %d renewals", p.status, b.issuer.Logins()-before)
	}
	b.issuer.LogIn(nil) // the session at the identity provider has ended
	b.pass(10 * time.Minute)
	r := b.request(http.MethodGet, "/status", nil, "HX-Request", "true")
	if p := b.send(r); p.status != http.StatusUnauthorized || p.header.Get("HX-Redirect") != "/login" {
		t.Errorf("a fragment: %d, HX-Redirect %q", p.status, p.header.Get("HX-Redirect"))
	}
	if p := b.post("/participants/oem/negotiations", url.Values{"offer": {"o"}}); p.status != http.StatusUnauthorized || !strings.Contains(p.Text(), "Your session has ended.") {
		t.Errorf("a form: %d %s", p.status, p.Text())
	}
	b.issuer.SetDown(true)
	if p := b.get("/"); p.status != http.StatusServiceUnavailable || !strings.Contains(p.Text(), "The identity provider does not answer.") {
		t.Errorf("with the identity provider down: %d %s", p.status, p.Text())
	}
}

func TestACookieThatWasTamperedWithIsNoSession(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	b.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	u, _ := url.Parse(b.server.URL)
	good := b.browser.Jar.Cookies(u)[0].Value
	other := "A"
	if good[0] == 'A' {
		other = "B"
	}
	for name, value := range map[string]string{"changed": other + good[1:], "cut": good[:20], "none": ""} {
		b.browser.Jar.SetCookies(u, []*http.Cookie{{Name: sessionCookie, Value: value, Path: "/", Secure: true}})
		if p := b.get("/"); p.status != http.StatusSeeOther || !strings.HasPrefix(p.header.Get("Location"), "/login") {
			t.Errorf("%s: %d to %s", name, p.status, p.header.Get("Location"))
		}
	}
}

func TestLoggingOutEndsTheSessionHereAndThere(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	b.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	p := b.post("/logout", url.Values{})
	to, _ := url.Parse(p.header.Get("Location"))
	if p.status != http.StatusSeeOther || !strings.HasPrefix(to.String(), b.issuer.URL+"/logout?") || to.Query().Get("id_token_hint") == "" || to.Query().Get("post_logout_redirect_uri") != b.server.URL+"/" {
		t.Errorf("%d to %s", p.status, to)
	}
	if p := b.get("/"); p.status != http.StatusSeeOther {
		t.Errorf("still logged in: %d", p.status)
	}
}

// A copy of the cookie, made while the session lasted, opens nothing once somebody has logged out: not at once, not after a restart, and not by
// its refresh token. Others' sessions go on.
func TestACopiedCookieEndsWithTheSession(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	b.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	u, _ := url.Parse(b.server.URL)
	copied := b.browser.Jar.Cookies(u)[0].Value
	opens := func() bool {
		b.browser = b.newBrowser()
		b.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		b.browser.Jar.SetCookies(u, []*http.Cookie{{Name: sessionCookie, Value: copied, Path: "/", Secure: true}})
		return b.get("/").status == http.StatusOK
	}
	if !opens() {
		t.Fatal("the copy does not open the session while it lasts")
	}
	b.pass(time.Second)
	b.restart()
	if !opens() {
		t.Error("a restart ends a session that nobody logged out of")
	}
	b.post("/logout", url.Values{})
	if opens() {
		t.Error("the copy opens the session that was logged out of")
	}
	b.pass(time.Second)
	b.restart()
	if opens() {
		t.Error("the copy opens the session after a restart")
	}
	b.browser = b.newBrowser()
	if p := b.as("oskar", "", "platform-operator").get("/"); p.status != http.StatusOK {
		t.Errorf("another session: %d", p.status)
	}
}

// The replicas know who has logged out through one of them, and forget it once nothing depends on it any more.
func TestACopiedCookieEndsOnEveryReplica(t *testing.T) {
	b := setup(t)
	one := b.pages
	b.restart()
	other := b.pages
	b.as("olga", "", "platform-operator")
	b.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	u, _ := url.Parse(b.server.URL)
	copied := b.browser.Jar.Cookies(u)
	opens := func(replica http.Handler) bool {
		b.pages = replica
		b.browser.Jar.SetCookies(u, []*http.Cookie{{Name: sessionCookie, Value: copied[0].Value, Path: "/", Secure: true}})
		return b.get("/").status == http.StatusOK
	}
	if !opens(one) || !opens(other) {
		t.Fatal("a replica does not know the session of another one")
	}
	b.pages = one
	b.pass(4 * time.Minute)
	b.post("/logout", url.Values{})
	if opens(other) {
		t.Error("the copy opens, on the other replica, the session that was logged out of")
	}
	told := func() int {
		var m corev1.ConfigMap
		if err := b.config.Service.Client.Get(t.Context(), ctrl.ObjectKey{Namespace: namespace, Name: LogOuts}, &m); err != nil {
			t.Fatal(err)
		}
		return len(m.Data)
	}
	if n := told(); n != 1 {
		t.Errorf("%d log-outs are told, want 1", n)
	}
	b.pass(4 * time.Minute) // another copy may have been renewed right before the log-out: its token counts for five minutes more
	b.browser = b.newBrowser()
	b.as("oskar", "", "platform-operator").post("/logout", url.Values{})
	if n := told(); n != 2 {
		t.Errorf("%d log-outs are told, want 2", n)
	}
	b.pass(24 * time.Hour)
	b.browser = b.newBrowser()
	b.as("oskar", "", "platform-operator").post("/logout", url.Values{})
	if n := told(); n != 1 {
		t.Errorf("%d log-outs are told a day later, want the newest alone", n)
	}
}

func TestLoggingOutWhileTheIdentityProviderIsDown(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	b.browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	u, _ := url.Parse(b.server.URL)
	cookies := b.browser.Jar.Cookies(u)
	b.issuer.SetDown(true)
	if p := b.post("/logout", url.Values{}); p.status != http.StatusSeeOther {
		t.Errorf("logging out: %d", p.status)
	}
	b.browser.Jar.SetCookies(u, []*http.Cookie{{Name: sessionCookie, Value: cookies[0].Value, Path: "/", Secure: true}})
	if p := b.get("/"); p.status != http.StatusSeeOther {
		t.Errorf("still logged in: %d", p.status)
	}
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	for _, path := range []string{"/logout", "/participants/oem/negotiations"} {
		r := b.request(http.MethodPost, path, url.Values{"offer": {"o1"}, "counterparty": {"supplier"}}, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
		if p := b.send(r); p.status != http.StatusForbidden {
			t.Errorf("POST %s from another site: %d", path, p.status)
		}
	}
	if got := b.connector.Requests(); len(got) > 0 {
		t.Errorf("the connector was called: %v", got)
	}
}

func TestPagesRunNoScriptButOurs(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	b.connector.Answer("GET rheintal-motoren/negotiations/n1", http.StatusOK, refused())
	for _, path := range []string{"/", "/participants/oem", "/participants/oem/negotiations/n1", "/nonsense"} {
		p := b.get(path)
		csp := p.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: policy %q", path, csp)
			}
		}
		p.Find("script").Each(func(_ int, s *goquery.Selection) {
			if src, _ := s.Attr("src"); !strings.HasPrefix(src, "/assets/") || s.Text() != "" {
				t.Errorf("%s: a script %q %q", path, src, s.Text())
			}
		})
		if p.Find("[style], style, [onclick], [onload]").Length() > 0 {
			t.Errorf("%s: inline style or handler", path)
		}
	}
	for _, asset := range []string{"htmx.min.js", "htmx-sse.min.js", "console.js", "console.css", "icon.svg", "NOTICE.txt"} {
		if p := b.get("/assets/" + asset); p.status != http.StatusOK {
			t.Errorf("asset %s: %d", asset, p.status)
		}
	}
}

func TestTheStatusPageShowsWhatTheAPISays(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	p := b.get("/")
	if got := p.Find("table.status tbody tr").Length(); got != 2 {
		t.Fatalf("%d rows: %s", got, p.Text())
	}
	row := `tr[data-participant="supplier"] `
	for selector, want := range map[string]string{
		row + "th a": "supplier", row + ".connector .badge": "Healthy", row + ".credentials .badge": "Failed",
		row + ".credentials .reason": "MembershipCredential was revoked by its issuer: on request. Ask the issuer why. The wallet asks for no new one by itself and takes one that the issuer offers", row + ".contracts small": "3 active · 0 under way · 0 failed",
	} {
		if got := text(p, selector); got != want {
			t.Errorf("%s is %q, want %q", selector, got, want)
		}
	}
	if every, _ := p.Find("#status").Attr("hx-trigger"); every != "every 5s" {
		t.Errorf("it refreshes %q", every)
	}
	p.Find("thead th").Each(func(_ int, s *goquery.Selection) {
		if scope, _ := s.Attr("scope"); scope != "col" {
			t.Errorf("heading %s has no scope", s.Text())
		}
	})
	if p := b.get("/status"); p.Find("html > head > title").Text() != "" || p.Find("#status").Length() != 1 {
		t.Error("the fragment is a whole page")
	}
}

func TestGermanForThoseWhoAskForIt(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	p := b.get("/", "Accept-Language", "de-AT,de;q=0.9,en;q=0.5")
	if l, _ := p.Find("html").Attr("lang"); l != "de" || text(p, ".who button") != "Abmelden" || !strings.Contains(text(p, "thead"), "Nachweise") {
		t.Errorf("lang %s: %s", l, p.Text())
	}
	if l, _ := b.get("/", "Accept-Language", "fr").Find("html").Attr("lang"); l != "en" {
		t.Errorf("French gets %s", l)
	}
}

// A credential's state is told in words, with what to do, in either language.
func TestCredentialStatesSayWhatToDo(t *testing.T) {
	for state, remedy := range adminapi.Remedies {
		for _, words := range []string{credentialState(string(state)), remedy} {
			if lang("de").t(words) == words {
				t.Errorf("%s: %q has no German", state, words)
			}
		}
	}
	b := setup(t).as("olga", "", "platform-operator")
	for language, want := range map[string][2]string{"en": {"Revoked", "What to do: Ask the issuer why."}, "de": {"Widerrufen", "Was zu tun ist: Fragen Sie den Aussteller nach dem Grund."}} {
		row := text(b.get("/participants/supplier", "Accept-Language", language), "table.credentials tbody tr")
		if !strings.Contains(row, want[0]) || !strings.Contains(row, want[1]) || !strings.Contains(row, "on request") {
			t.Errorf("%s: %s", language, row)
		}
	}
}

func TestAPersonSeesTheOwnOrganizationOnly(t *testing.T) {
	b := setup(t).as("viktor", "brandt-guss", "viewer")
	if p := b.get("/"); p.Find("table.status tbody tr").Length() != 1 {
		t.Errorf("sees %s", p.Text())
	}
	if p := b.get("/participants/oem"); p.status != http.StatusNotFound || p.Find(".problem").Length() != 1 {
		t.Errorf("another's participant: %d", p.status)
	}
	p := b.get("/participants/supplier")
	if p.Find(`a[href$="/catalog"]`).Length() != 0 {
		t.Error("a viewer is shown how to start a negotiation")
	}
	b.connector.Answer("GET brandt-guss/catalog", http.StatusOK, []adminapi.CatalogEntry{{OfferID: "o1", AssetID: "pcf", Policy: json.RawMessage(`{"@type":"Offer"}`)}})
	if p := b.get("/participants/supplier/catalog?counterparty=oem"); p.Find(`article[data-offer="o1"]`).Length() != 1 || p.Find("article form").Length() != 0 {
		t.Errorf("a viewer's catalog: %s", p.Text())
	}
	if p := b.post("/participants/supplier/negotiations", url.Values{"offer": {"o1"}, "counterparty": {"oem"}}); p.status != http.StatusForbidden || !strings.Contains(p.Text(), "organization-admin") {
		t.Errorf("starting one: %d %s", p.status, p.Text())
	}
}

func refused() adminapi.Negotiation {
	at := time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	return adminapi.Negotiation{
		ID: "n1", State: "TERMINATED", Role: "consumer", AssetID: "pcf", OfferID: "o1", Counterparty: "did:web:shared.example:brandt-guss",
		Reason:  &adminapi.Reason{Code: "policy-denied", Message: "the attestation is <13> months old", By: "own"},
		History: []adminapi.Event{{At: at, State: "REQUESTED"}, {At: at.Add(time.Second), State: "TERMINATED", Detail: "refused"}},
		Traces: []adminapi.Trace{{Phase: "negotiation", At: at, Checks: []adminapi.Check{
			{Sentence: "The consumer is an active member.", Subject: "consumer", Party: "did:web:x", Value: "active", CredentialType: "MembershipCredential", Satisfied: true, Credential: "urn:uuid:1"},
			{Sentence: "The attestation is younger than 12 months.", Subject: "provider", Party: "did:web:y", Value: "2025-09-01", Reason: "it is 13 months old", Remedy: "Have it attested again.",
				LeftOperand: "AttestationAge", Operator: "lt", RightOperand: json.RawMessage(`"P12M"`)},
		}}},
	}
}

func TestARefusalIsToldInPlainWords(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	b.connector.Answer("GET rheintal-motoren/negotiations/n1", http.StatusOK, refused())
	p := b.get("/participants/oem/negotiations/n1")
	for selector, want := range map[string]string{
		".state .badge": "Ended without agreement", ".why p": "the attestation is <13> months old", ".check.no .sentence": "The attestation is younger than 12 months.",
		".check.no .seen": "2025-09-01", ".check.no .reason": "it is 13 months old", ".check.no .remedy": "Have it attested again.", ".check.yes .seen": "active", ".check.yes .type": "MembershipCredential",
		"dd .party": "Brandt Guss GmbH",
	} {
		if got := text(p, selector); got != want {
			t.Errorf("%s is %q, want %q", selector, got, want)
		}
	}
	if p.Find("[sse-connect]").Length() != 0 {
		t.Error("an ended negotiation is still listened to")
	}
}

// What connectors and operators say is English; a German page says it in German, and shows the English as a technical message only. What the
// counterparty said is quoted.
func TestAGermanPageHasNoEnglishReason(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	now, by := time.Now(), map[string]adminapi.Negotiation{}
	own, theirs, away := refused(), refused(), refused()
	own.Reason.Message = "ENGLISH"
	own.Traces[0].Checks[1].Sentence, own.Traces[0].Checks[1].Reason, own.Traces[0].Checks[1].Remedy = "ENGLISH", "ENGLISH", "ENGLISH"
	own.Traces[0].Checks[1].DE = &adminapi.CheckWords{Sentence: "Jünger als 12 Monate.", Reason: "13 Monate alt", Remedy: "Neu bescheinigen lassen."}
	own.Traces[0].Checks = own.Traces[0].Checks[1:]
	theirs.Reason, theirs.Traces = &adminapi.Reason{Code: "counterparty-terminated", By: "counterparty", Message: "ENGLISH"}, nil
	away.State, away.Reason, away.Traces, away.Waiting = "REQUESTED", nil, nil, "ENGLISH"
	away.Retry = &adminapi.Retry{Attempts: 3, Error: "ENGLISH", Next: &now}
	by["own"], by["theirs"], by["away"] = own, theirs, away
	for id, n := range by {
		b.connector.Answer("GET rheintal-motoren/negotiations/"+id, http.StatusOK, n)
	}
	b.connector.Answer("GET rheintal-motoren/negotiations", http.StatusOK, []adminapi.Negotiation{own, away})
	b.connector.Answer("GET rheintal-motoren/catalog", http.StatusBadGateway, adminapi.Error{Code: "counterparty-unreachable", Message: "ENGLISH"})
	for path, want := range map[string]string{
		"/participants/oem/negotiations/own":              "13 Monate alt",
		"/participants/oem/negotiations/theirs":           "Im Wortlaut von Brandt Guss GmbH",
		"/participants/oem/negotiations/away":             "Der Konnektor dort hat unsere Nachricht in 3 Versuchen nicht angenommen.",
		"/participants/oem/negotiations":                  "Wartet auf Brandt Guss GmbH",
		"/participants/oem/catalog?counterparty=supplier": "Der Konnektor des Partners ist nicht erreichbar.",
		"/participants/supplier":                          "Vom Aussteller widerrufen.",
		"/":                                               "MembershipCredential wurde vom Aussteller widerrufen",
	} {
		p := b.get(path, "Accept-Language", "de")
		p.Find(`[lang="en"], q`).Remove()
		if got := text(p, "main"); !strings.Contains(got, want) || strings.Contains(got, "ENGLISH") || strings.Contains(got, "on request") {
			t.Errorf("%s lacks %q or has English in it: %s", path, want, got)
		}
	}
	if p := b.get("/participants/oem/negotiations/theirs", "Accept-Language", "de"); text(p, ".why q") != "ENGLISH" {
		t.Errorf("the counterparty is not quoted: %s", p.Text())
	}
}

func TestEveryTextHasItsGerman(t *testing.T) {
	used := regexp.MustCompile(`(?:v\.t|lang\.f)\("([^"]+)"[,)]`)
	for _, pattern := range []string{"*.templ", "*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range used.FindAllStringSubmatch(string(raw), -1) {
				if german[m[1]] == "" {
					t.Errorf("%s: %q has no German", file, m[1])
				}
			}
		}
	}
}

func TestANegotiationIsShownAsItHappens(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	states := []string{"REQUESTED", "AGREED", "FINALIZED"}
	var at atomic.Int64
	b.connector.On("GET rheintal-motoren/negotiations/n1", func(*http.Request) (int, any) {
		n := adminapi.Negotiation{ID: "n1", State: states[min(int(at.Add(1))-1, 2)], AssetID: "a\nb", History: []adminapi.Event{}}
		if n.State == "FINALIZED" {
			n.AgreementID = "agreement-1"
		}
		return http.StatusOK, n
	})
	p := b.get("/participants/oem/negotiations/n1")
	connect, _ := p.Find("#negotiation").Attr("sse-connect")
	if swap, _ := p.Find("#negotiation").Attr("sse-swap"); connect != "/participants/oem/negotiations/n1/events" || swap != "negotiation" {
		t.Fatalf("it listens to %q for %q", connect, swap)
	}
	at.Store(0)
	resp, err := b.browser.Do(b.request(http.MethodGet, connect, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var events, badges []string
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			events = append(events, name)
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: <"); ok {
			doc, err := goquery.NewDocumentFromReader(strings.NewReader("<" + data))
			if err != nil {
				t.Fatal(err)
			}
			badges = append(badges, strings.TrimSpace(doc.Find(".state .badge").Text()))
		}
	}
	if got := strings.Join(events, " "); got != "negotiation negotiation negotiation ended" {
		t.Errorf("events %s", got)
	}
	if got := strings.Join(badges, " "); got != "Requested Agreed Concluded" {
		t.Errorf("badges %s", got)
	}
}

func TestStartingANegotiationFromTheCatalog(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	b.connector.Answer("GET rheintal-motoren/catalog", http.StatusOK, []adminapi.CatalogEntry{{
		OfferID: "o1", AssetID: "pcf", Properties: map[string]any{"name": "Carbon footprint"}, Policy: json.RawMessage(`{"@type":"Offer","permission":[{"action":"use"}]}`), Sentences: []string{"Only members."},
	}})
	b.connector.On("POST rheintal-motoren/negotiations", func(r *http.Request) (int, any) {
		raw, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(raw), `"counterparty":"did:web:shared.example:brandt-guss","offerId":"o1"`) {
			t.Errorf("the connector is asked %s", raw)
		}
		return http.StatusCreated, adminapi.Negotiation{ID: "n1", State: "REQUESTED"}
	})
	b.connector.Answer("GET rheintal-motoren/negotiations/n1", http.StatusOK, refused())
	p := b.get("/participants/oem/catalog")
	if partner := p.Find("datalist option"); partner.Length() != 1 || partner.AttrOr("value", "") != "supplier" || partner.Text() != "Brandt Guss GmbH" {
		t.Errorf("partners: %s", partner.Text())
	}
	p = b.get("/participants/oem/catalog?counterparty=supplier")
	offer := p.Find(`article[data-offer="o1"]`)
	if strings.TrimSpace(offer.Find("h3").Text()) != "Carbon footprint" || !strings.Contains(offer.Text(), "Use case: carbon-footprint") || strings.TrimSpace(offer.Find("li").Text()) != "Only members." {
		t.Errorf("offer: %s", offer.Text())
	}
	form := url.Values{}
	offer.Find("form input").Each(func(_ int, s *goquery.Selection) {
		name, _ := s.Attr("name")
		value, _ := s.Attr("value")
		form.Set(name, value)
	})
	action, _ := offer.Find("form").Attr("action")
	if p := b.post(action, form); p.status != http.StatusOK || p.url.Path != "/participants/oem/negotiations/n1" {
		t.Errorf("%d at %s", p.status, p.url)
	}
}

func TestListOfNegotiations(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	b.connector.Answer("GET rheintal-motoren/negotiations", http.StatusOK, []adminapi.Negotiation{refused()})
	p := b.get("/participants/oem/negotiations")
	if href, _ := p.Find("table.negotiations tbody a").Attr("href"); href != "/participants/oem/negotiations/n1" || text(p, "table.negotiations .badge") != "Ended without agreement" {
		t.Errorf("%s: %s", href, p.Text())
	}
}

func TestFailuresAreErrorPagesThatSayWhatToDo(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	for name, c := range map[string]struct {
		arrange func()
		path    string
		status  int
		words   string
	}{
		"a cell that is gone":      {func() { b.connector.Fail(cellrpc.ErrNotConnected) }, "/participants/oem/negotiations", http.StatusServiceUnavailable, `cell "shared"`},
		"a cell that is too slow":  {func() { b.connector.Fail(context.DeadlineExceeded) }, "/participants/oem/negotiations", http.StatusServiceUnavailable, `cell "shared"`},
		"a connector that fails":   {func() { b.connector.Answer("GET rheintal-motoren/negotiations", 500, "boom") }, "/participants/oem/negotiations", http.StatusBadGateway, "answered 500"},
		"a page that is not there": {func() {}, "/nonsense", http.StatusNotFound, "no such page"},
		"a policy that says no": {func() {
			b.connector.Answer("GET rheintal-motoren/catalog", http.StatusForbidden, adminapi.Error{Code: "policy-denied", Message: "no", Trace: &refused().Traces[0]})
		}, "/participants/oem/catalog?counterparty=supplier", http.StatusForbidden, "Have it attested again."},
	} {
		t.Run(name, func(t *testing.T) {
			b.connector.Fail(nil)
			c.arrange()
			p := b.get(c.path)
			if p.status != c.status || p.Find(".problem h1").Length() != 1 || !strings.Contains(p.Text(), c.words) || p.Find(".problem a.button").Length() != 1 {
				t.Errorf("%d: %s", p.status, p.Text())
			}
		})
	}
}

// TestTermsAreAnsweredOnTheirPage: where it is the person's turn, the page of a negotiation says so in the person's language and has a form for each answer.
func TestTermsAreAnsweredOnTheirPage(t *testing.T) {
	const policy = `{"@type":"Offer","permission":[{"action":"use"}]}`
	n := adminapi.Negotiation{ID: "n1", State: "OFFERED", Role: "consumer", AssetID: "pcf", OfferID: "o1", Counterparty: "did:web:shared.example:rheintal-motoren", Waiting: "ENGLISH", Decides: true,
		Terms: &adminapi.Terms{Policy: json.RawMessage(policy), Hash: "5f3a", Sentences: []string{"younger than 12 months"}, DE: []string{"jünger als 12 Monate"}}}
	b := setup(t).as("olga", "", "platform-operator")
	b.connector.Answer("GET brandt-guss/negotiations/n1", http.StatusOK, n)
	b.connector.Answer("GET brandt-guss/negotiations", http.StatusOK, []adminapi.Negotiation{n})
	const path = "/participants/supplier/negotiations"
	for language, want := range map[string][]string{
		"en": {"Waits for your decision", "younger than 12 months", "Accept these terms", "End the negotiation"},
		"de": {"Wartet auf Ihre Entscheidung", "jünger als 12 Monate", "Diese Bedingungen annehmen", "Verhandlung beenden"},
	} {
		p := b.get(path+"/n1", "Accept-Language", language)
		for _, w := range want {
			if !strings.Contains(text(p, "main"), w) {
				t.Errorf("%s: the page lacks %q: %s", language, w, text(p, "main"))
			}
		}
		if strings.Contains(text(p, "main"), "ENGLISH") || !strings.Contains(p.Find("textarea").Text(), "\n  \"permission\"") {
			t.Errorf("%s: %s", language, text(p, "main"))
		}
		if seen := p.Find(`form[action$="/accept"] input[name="terms"]`).AttrOr("value", ""); seen != "5f3a" {
			t.Errorf("%s: the form accepts the terms %q", language, seen)
		}
		if got := text(b.get(path, "Accept-Language", language), "table.negotiations"); !strings.Contains(got, want[0]) {
			t.Errorf("%s: the list says %s", language, got)
		}
	}
	for verb, form := range map[string]url.Values{"accept": {"terms": {"5f3a"}}, "counter": {"policy": {policy}}, "terminate": {"reason": {"enough"}}} {
		b.connector.Answer("POST brandt-guss/negotiations/n1/"+verb, http.StatusOK, n)
		if p := b.post(path+"/n1/"+verb, form); p.status != http.StatusOK || p.url.Path != path+"/n1" {
			t.Errorf("%s leads to %d %s", verb, p.status, p.url)
		}
		if !slices.ContainsFunc(b.connector.Requests(), func(r string) bool {
			return strings.Contains(r, "/negotiations/n1/"+verb) && (strings.Contains(r, `{"termsHash":"5f3a"}`) || strings.Contains(r, `"use"`) || strings.Contains(r, "enough"))
		}) {
			t.Errorf("%s: the connector got %s", verb, b.connector.Requests())
		}
		before := len(b.connector.Requests())
		if p := b.send(b.request(http.MethodPost, path+"/n1/"+verb, form, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")); p.status != http.StatusForbidden || len(b.connector.Requests()) != before {
			t.Errorf("%s from another site: %d", verb, p.status)
		}
	}
	if p := b.post(path+"/n1/counter", url.Values{"policy": {"{"}}); p.status != http.StatusUnprocessableEntity {
		t.Errorf("terms that are no JSON: %d", p.status)
	}
	v := setup(t).as("viktor", "brandt-guss", "viewer")
	v.connector.Answer("GET brandt-guss/negotiations/n1", http.StatusOK, n)
	if p := v.get(path + "/n1"); !strings.Contains(text(p, "main"), "younger than 12 months") || p.Find("main form").Length() != 0 {
		t.Errorf("a viewer's page: %s", text(p, "main"))
	}
	for _, verb := range []string{"accept", "counter", "terminate"} {
		if p := v.post(path+"/n1/"+verb, url.Values{}); p.status != http.StatusForbidden {
			t.Errorf("%s by a viewer: %d", verb, p.status)
		}
	}
}

func TestAConsoleWithoutASecretDoesNotStart(t *testing.T) {
	if _, err := New(Config{Service: api.New(api.Service{})}); err == nil {
		t.Error("it started")
	}
}

// waits is a negotiation that two parties must approve, one of whom has.
func waits() (adminapi.Negotiation, adminapi.Approval) {
	until := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	g := adminapi.GateState{Name: "two-parties", Type: adminapi.GateApproval, Before: "AGREED", State: adminapi.GateOpen, Deadline: &until, Words: "1 of 2 approvals are given", DE: "1 von 2 Zustimmungen liegen vor",
		WaitsFor: []adminapi.Approver{{ID: "sub-olga", Name: "Olga", Organization: "oem"}},
		Decided:  []adminapi.GateDecision{{ID: "d", Gate: "two-parties", Verdict: adminapi.Approve, By: adminapi.Approver{Name: "Berta", Organization: "brandt-guss"}, Comment: "fine", At: until.AddDate(0, 0, -1)}}}
	n := adminapi.Negotiation{ID: "n-1", Role: "provider", State: "REQUESTED", Counterparty: "did:web:shared.example:rheintal-motoren", AssetID: "pcf", Waiting: "ENGLISH", Gates: []adminapi.GateState{g}}
	return n, adminapi.Approval{Provider: "did:web:shared.example:brandt-guss", Negotiation: n.ID, Counterparty: n.Counterparty, AssetID: "pcf", OfferID: "o-1", UseCase: "reviewed", OfferHash: "abcd",
		Policy: json.RawMessage(`{"@type":"Offer"}`), Verdicts: []adminapi.PolicyVerdict{{Sentence: "younger than 12 months", DE: "jünger als 12 Monate", Satisfied: true}}, Gate: g}
}

// script posts JSON as a page's script does, and returns the status.
func (b *bundle) script(path, body string) int {
	b.Helper()
	r := b.request(http.MethodPost, path, nil, "Origin", b.server.URL, "Sec-Fetch-Site", "same-origin", "Content-Type", "application/json")
	r.Body = io.NopCloser(strings.NewReader(body))
	r.ContentLength = int64(len(body))
	return b.send(r).status
}

func TestTheInboxShowsWhatWaitsForThePersonAndPassesItsDecisionOn(t *testing.T) {
	b := setup(t).as("olga", "", "platform-operator")
	n, a := waits()
	gated := &cloudv1.UseCase{ObjectMeta: metav1.ObjectMeta{Name: "reviewed", Namespace: namespace}, Spec: cloudv1.UseCaseSpec{Profile: "automotive", Gates: []cloudv1.UseCaseGate{{Name: "two-parties"}}}}
	if err := b.config.Service.Client.Create(t.Context(), gated); err != nil {
		t.Fatal(err)
	}
	b.connector.Answer("GET brandt-guss/approvals", http.StatusOK, []adminapi.Approval{a})
	b.connector.Answer("GET brandt-guss/negotiations/n-1", http.StatusOK, n)
	for language, want := range map[string][]string{"en": {"1 of 2 approvals are given", "younger than 12 months", "Berta (brandt-guss): approves"}, "de": {"1 von 2 Zustimmungen liegen vor", "jünger als 12 Monate", "Berta (brandt-guss): stimmt zu"}} {
		p := b.get("/approvals", "Accept-Language", language)
		item := p.Find(".approval")
		for name, value := range map[string]string{"participant": "supplier", "provider": a.Provider, "negotiation": "n-1", "offer": "abcd", "gate": "two-parties"} {
			if got := item.AttrOr("data-"+name, ""); got != value {
				t.Errorf("%s: data-%s is %q, want %q", language, name, got, value)
			}
		}
		if p.Find("[data-approvals]").AttrOr("data-approvals", "") != "sub-olga" || item.Find(`button[value="approve"]`).Length() != 1 || item.Find(`button[value="trigger"]`).Length() != 0 {
			t.Errorf("%s: the page cannot sign: %s", language, text(p, "main"))
		}
		for _, w := range want {
			if !strings.Contains(text(p, ".approval"), w) {
				t.Errorf("%s lacks %q: %s", language, w, text(p, ".approval"))
			}
		}
		of := text(b.get("/participants/supplier/negotiations/n-1", "Accept-Language", language), "main")
		if !strings.Contains(of, want[0]) || !strings.Contains(of, want[2]) || strings.Contains(of, "ENGLISH") {
			t.Errorf("%s: the negotiation's page does not say what it waits for: %s", language, of)
		}
	}
	broken := a
	broken.Negotiation, broken.Unreadable, broken.Policy, broken.OfferHash = "n-2", "ENGLISH", nil, ""
	b.connector.Answer("GET brandt-guss/approvals", http.StatusOK, []adminapi.Approval{a, broken})
	p := b.get("/approvals", "Accept-Language", "de")
	if got := text(p, "[data-unreadable]"); p.Find(".approval").Length() != 1 || !strings.Contains(got, "Das Angebot ist nicht lesbar") || !strings.Contains(got, "n-2") || text(p, `[data-unreadable] [lang="en"]`) != "ENGLISH" {
		t.Errorf("an offer that cannot be read: %s", got)
	}
	theirs := adminapi.Negotiation{ID: "n-3", Role: "consumer", State: "VERIFIED", Counterparty: a.Provider, AssetID: "pcf", Waiting: "ENGLISH", History: []adminapi.Event{{State: "VERIFIED", At: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)}}}
	b.connector.Answer("GET rheintal-motoren/negotiations/n-3", http.StatusOK, theirs)
	for language, want := range map[string]string{"en": "the other side's turn, since 2026-12-01 12:00:00 UTCA gate there may hold it", "de": "Die Gegenseite ist am Zug, seit 2026-12-01 12:00:00 UTCDort kann ein Prüfschritt sie halten"} {
		if got := text(b.get("/participants/oem/negotiations/n-3", "Accept-Language", language), ".waiting"); !strings.Contains(got, want) {
			t.Errorf("%s: the consumer reads: %s", language, got)
		}
	}
	b.connector.Answer("POST brandt-guss/negotiations/n-1/decisions", http.StatusOK, n)
	if got := b.script("/participants/supplier/negotiations/n-1/decisions", `{"decision":"a.b.c"}`); got != http.StatusNoContent {
		t.Errorf("the decision is answered %d", got)
	}
	if got := b.connector.Requests(); !strings.Contains(got[len(got)-1], `{"decision":"a.b.c"}`) {
		t.Errorf("the connector got %s", got[len(got)-1])
	}
	const key = `{"publicKey":{"crv":"P-256","kty":"EC","x":"LQ0MqoCjbid1l9U5WEiWjOmxcZ6IZBR58K5vys913Lk","y":"hC2P8BY6qqCVPzJrFEPcfrpwKdGQIB49liMZmbzgs3Q"}}`
	for body, want := range map[string]int{key: http.StatusNoContent, `{"publicKey":{}}`: http.StatusUnprocessableEntity, `no JSON`: http.StatusBadRequest} {
		if got := b.script("/approvals/keys", body); got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
}
