// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// browser is a Chromium with a profile of its own, and what its pages complained about.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// newBrowser starts one that asks for pages in a language.
func newBrowser(t *testing.T, language string) *browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is not on the PATH: install it (Debian package chromium)")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(program), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1280, 1000), chromedp.Flag("ignore-certificate-errors-spki-list", strings.Join(trustedKeys(t), ",")),
	}
	for _, off := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"} {
		options = append(options, chromedp.Flag(off, true))
	}
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() { cancel(); stop() })
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatalf("%s does not start: %v", program, err)
	}
	if _, err := chromedp.Call(ctx, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": language}}); err != nil {
		t.Fatal(err)
	}
	return b
}

// trustedKeys are the keys of the gateway's certificates, verified with the cluster's authority; the browser trusts these and no others.
func trustedKeys(t *testing.T) []string {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(readFile(t, caFile()))
	var out []string
	for _, host := range []string{"console.", "id."} {
		conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", host+domain()+":443")
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo) //nolint:forcetypeassert // a TLS dialer's
		out = append(out, base64.StdEncoding.EncodeToString(hash[:]))
		_ = conn.Close()
	}
	return out
}

func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			for _, arg := range e.Args {
				b.problems = append(b.problems, fmt.Sprintf("console.%s: %s %s", e.Type, arg.Value, arg.Description))
			}
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			b.problems = append(b.problems, fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL))
		}
	}
}

// complaints returns what the console's own pages complained about so far, and forgets it. Keycloak's pages are not ours.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, p := range b.problems {
		if !strings.Contains(p, "https://id.") {
			out = append(out, p)
		}
	}
	b.problems = nil
	return out
}

// do runs actions, which have to succeed within the tests' patience.
func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.look("failed")
		b.t.Fatalf("%s: %v", what, err)
	}
}

// evaluate runs a script in the page and returns what it yields.
func evaluate[T any](b *browser, what, script string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T](script))
	if err != nil {
		b.look("failed")
		b.t.Fatalf("%s: %v", what, err)
	}
	return out
}

func visible(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.WaitVisible(chromedp.CSS(selector))
}

func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Click(chromedp.CSS(selector))
}

// look takes a picture of the whole page.
func (b *browser) look(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Logf("picture %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), png, 0o600); err != nil {
		b.t.Error(err)
	}
}

// text is what a person reads in the elements that a selector finds.
func (b *browser) text(selector string) string {
	b.t.Helper()
	out := evaluate[string](b, "read "+selector, fmt.Sprintf(`[...document.querySelectorAll(%q)].map(e => e.innerText).join("\n")`, selector))
	return strings.Join(strings.Fields(out), " ")
}

// await waits until the page shows words in a selector's elements, without loading it again.
func (b *browser) await(selector, words string) {
	b.t.Helper()
	var last string
	eventually(b.t, fmt.Sprintf("%q in %s", words, selector), func(context.Context) (bool, string) {
		last = b.text(selector)
		return strings.Contains(last, words), last
	})
}

func consoleAddress() string { return "https://console." + domain() }

// logIn opens a page of the console as somebody who is not logged in yet.
func (b *browser) logIn(path, person string) {
	b.t.Helper()
	b.do("log in as "+person, chromedp.Navigate(consoleAddress()+path))
	b.identify(person)
	b.do(person+"'s page", visible(".who"))
}

// identify fills in the identity provider's form.
func (b *browser) identify(person string) {
	b.t.Helper()
	_, cs := kube(b.t)
	people, err := cs.CoreV1().Secrets(ownSystem).Get(b.t.Context(), "people", metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	password := string(people.Data[person])
	if password == "" {
		b.t.Fatalf("Secret people has no %q", person)
	}
	b.do("the log-in form", visible("#username"), chromedp.SendKeys(chromedp.CSS("#username"), person), chromedp.SendKeys(chromedp.CSS("#password"), password), click("#kc-login"))
}

// open shows a page of the console, checks that everybody can use it, and takes a picture.
func (b *browser) open(path, name string) {
	b.t.Helper()
	b.do(path, chromedp.Navigate(consoleAddress()+path), visible("main h1"))
	b.check(name)
}

// check judges the page that is shown: its structure, contrast and keyboard, and the browser's log.
func (b *browser) check(name string) {
	b.t.Helper()
	b.look(name)
	for _, f := range evaluate[[]string](b, "accessibility of "+name, accessibility) {
		b.t.Errorf("%s: %s", name, f)
	}
	b.keyboard(name)
	for _, p := range b.complaints() {
		b.t.Errorf("%s: the browser complains: %s", name, p)
	}
}

// keyboard goes through the page with the tab key: everything that can be used gets the focus, visibly, and the way past the menu comes first. A page that
// is replaced in the middle is gone through again: each of its elements is another one then.
func (b *browser) keyboard(name string) {
	b.t.Helper()
	var bad []string
	evaluate[int](b, "count how often the page is replaced", `window.replaced ??= (document.addEventListener("htmx:sseMessage", () => window.replaced++), 0)`)
	for range 5 {
		before := evaluate[int](b, "how often the page was replaced", `window.replaced`)
		bad = b.tab()
		if evaluate[int](b, "how often the page was replaced", `window.replaced`) == before {
			break
		}
	}
	for _, f := range bad {
		b.t.Errorf("%s: %s", name, f)
	}
}

// tab goes through the page once and says what is wrong with the way.
func (b *browser) tab() (bad []string) {
	b.t.Helper()
	want := evaluate[int](b, "focusable elements", `(() => { const top = document.createElement("span"); // the keyboard starts from where it was last
		top.tabIndex = -1; document.body.prepend(top); top.focus(); top.remove() })(); [...document.querySelectorAll("a[href], button, input:not([type=hidden]), summary")].filter(e => e.checkVisibility()).length`)
	reached := map[string]bool{}
	for i := range want {
		b.do("tab", chromedp.KeyEvent(kb.Tab))
		at := evaluate[struct {
			Path  string `json:"path"`
			Shown bool   `json:"shown"`
			Class string `json:"class"`
		}](b, "focus", `(() => { const e = document.activeElement, s = getComputedStyle(e);
			return {path: [...document.querySelectorAll("*")].indexOf(e) + " " + e.outerHTML.slice(0, 80), shown: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0, class: String(e.className)} })()`)
		if i == 0 && at.Class != "skip" {
			bad = append(bad, "the first tab does not reach the way past the menu but "+at.Path)
		}
		if !at.Shown {
			bad = append(bad, "one does not see that the focus is on "+at.Path)
		}
		reached[at.Path] = true
	}
	if len(reached) != want {
		bad = append(bad, fmt.Sprintf("the tab key reaches %d of %d elements", len(reached), want))
	}
	return bad
}

// accessibility lists what keeps somebody from using a page: WCAG 2.1 AA as far as a program sees it.
const accessibility = `(() => {
	const bad = [], show = e => e.outerHTML.slice(0, 120), all = s => [...document.querySelectorAll(s)];
	if (!/^(en|de)$/.test(document.documentElement.lang)) bad.push("no language");
	if (!document.title) bad.push("no title");
	if (all("main").length !== 1) bad.push("no main part");
	if (all("h1").length !== 1) bad.push(all("h1").length + " main headings");
	let level = 0;
	for (const h of all("h1, h2, h3, h4, h5, h6")) {
		const n = +h.tagName[1];
		if (n > level + 1) bad.push("a heading skips a level: " + show(h));
		level = n;
	}
	for (const e of all("input:not([type=hidden]), select, textarea")) if (!e.labels?.length && !e.ariaLabel) bad.push("no label: " + show(e));
	for (const e of all("img")) if (!e.hasAttribute("alt")) bad.push("no text for an image: " + show(e));
	for (const e of all("a[href], button, summary")) if (e.checkVisibility() && !e.textContent.trim() && !e.ariaLabel) bad.push("no words: " + show(e));
	for (const e of all("nav")) if (!e.ariaLabel) bad.push("a nameless menu: " + show(e));
	for (const e of all("th")) if (!e.scope) bad.push("a heading of nothing: " + show(e));
	const ids = all("[id]").map(e => e.id);
	for (const id of new Set(ids)) if (ids.filter(i => i === id).length > 1) bad.push("an id twice: " + id);
	const rgba = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
	const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
	for (const e of all("body *")) {
		if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility() || e.closest(".skip")) continue;
		let back = e;
		while (back && rgba(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement;
		const a = light(rgba(getComputedStyle(e).color)), b = back ? light(rgba(getComputedStyle(back).backgroundColor)) : 1;
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (ratio < 4.5) bad.push("contrast " + ratio.toFixed(1) + ": " + show(e));
	}
	return bad;
})()`
