// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/connector/adminapi"
)

// FuzzLocal: after a log-in a browser stays with the console, however it reads an address.
func FuzzLocal(f *testing.F) {
	for _, to := range []string{"/participants/supplier?tab=1#x", "//evil.example", `/\evil.example`, "/\t/evil.example", "https://evil.example/", "/.//evil.example", "javascript:alert(1)", "/%2f/evil.example"} {
		f.Add(to)
	}
	console, err := url.Parse("https://console.example/login")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, to string) {
		w := httptest.NewRecorder()
		http.Redirect(w, httptest.NewRequest(http.MethodGet, console.String(), nil), local(to), http.StatusSeeOther)
		given := w.Header().Get("Location")
		// As the URL standard has browsers read it (https://url.spec.whatwg.org/#concept-basic-url-parser).
		read := strings.ReplaceAll(strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(given), `\`, "/")
		read = strings.TrimFunc(read, func(r rune) bool { return r <= ' ' })
		if !strings.HasPrefix(read, "/") || strings.HasPrefix(read, "//") {
			t.Fatalf("%q leads to %q", to, given)
		}
		if u, err := console.Parse(read); err == nil && u.Host != console.Host {
			t.Fatalf("%q leads to %s", to, u)
		}
	})
}

// FuzzCookie: no cookie opens but one that was sealed here, under its own name.
func FuzzCookie(f *testing.F) {
	s, err := newSealer("a client secret")
	if err != nil {
		f.Fatal(err)
	}
	// Kept, since every process that looks for inputs seals another.
	const sealed = "acCdeYD0LCgtYDtjSMOISanFJkz1kHZlRy0uZjjsCUZtWC7E74EAdWp4q8DwvukeJq1MmcNdcPtaGEsWUe1ON57yEFwVSU2inbjAjK1lhYw-it_dYVqWG4fMTnlJomI17fRER6zIUINO0s8LOJjTSI_XuRcnCAw7g8to2N7x-1FiMJ-BxoZtCA17"
	var kept session
	if err := s.open(sessionCookie, sealed, &kept); err != nil || kept.ID != "kept" {
		f.Fatalf("the kept cookie holds %+v, %v", kept, err)
	}
	f.Add(sealed)
	f.Add(sealed[:len(sealed)-1])
	f.Add("")
	genuine, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		var out session
		if raw, _ := base64.RawURLEncoding.DecodeString(value); s.open(sessionCookie, value, &out) == nil && string(raw) != string(genuine) {
			t.Fatalf("%q opens as %+v", value, out)
		}
		if s.open(loginCookie, value, &out) == nil {
			t.Fatalf("%q opens under another name", value)
		}
	})
}

// FuzzSent: what a page's script sends is read, or refused as a bad request; a page has one of the languages that there are.
func FuzzSent(f *testing.F) {
	f.Add([]byte(`{"decision":"a.b.c"}`), "de-AT,de;q=0.9")
	f.Add([]byte(`{"publicKey":{"kty":"EC"}}`), "*")
	f.Add([]byte(`{"decision":"`+strings.Repeat("x", maxSent)+`"}`), "en-"+strings.Repeat("x-", 500))
	f.Fuzz(func(t *testing.T, body []byte, accepted string) {
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
		r.Header.Set("Accept-Language", accepted)
		var p *api.Problem
		if _, err := readJSON[adminapi.SignedDecision](httptest.NewRecorder(), r); err != nil && (!errors.As(err, &p) || p.Status != http.StatusBadRequest) {
			t.Fatalf("not a refusal: %v", err)
		}
		if l := language(r); l != "en" && l != "de" {
			t.Fatalf("%q is language %q", accepted, l)
		}
	})
}
