// SPDX-License-Identifier: Apache-2.0

package runtime_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dsp/wire"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/runtime"
)

var (
	routeText = regexp.MustCompile(`"(GET|POST|PUT|DELETE) (/[^"]*)"`)
	baseText  = regexp.MustCompile(`base\s*:?=\s*" (/[^"]*)"`)
	underBase = regexp.MustCompile(`"(GET|POST|PUT|DELETE)"\s*\+\s*base\s*\+\s*"(/[^"]*)"`)
	dspText   = regexp.MustCompile(`"(GET|POST) ((?:catalog|negotiations|transfers)/[^"]*)"`)
	variable  = regexp.MustCompile(`\{[^}]*\}`)
)

// routes are those that the roles' sources name, with "acme" as the participant and "x" as everything else.
func routes(t *testing.T) (all [][2]string) {
	t.Helper()
	for _, dir := range []string{".", "../dsp", "../dataplane", "../wallet", "../issuer", "../management"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			add := func(method []byte, path string) {
				path = strings.ReplaceAll(path, "{ctx}", "acme")
				all = append(all, [2]string{string(method), variable.ReplaceAllString(path, "x")})
			}
			for _, m := range routeText.FindAllSubmatch(source, -1) {
				add(m[1], string(m[2]))
			}
			for _, m := range dspText.FindAllSubmatch(source, -1) {
				add(m[1], "/{ctx}/dsp/2025-1/"+string(m[2]))
				add(m[1], "/{ctx}/dsp/{profile}/2025-1/"+string(m[2]))
			}
			for _, b := range baseText.FindAllSubmatch(source, -1) {
				for _, m := range underBase.FindAllSubmatch(source, -1) {
					add(m[1], string(b[1])+string(m[2]))
				}
			}
		}
	}
	return all
}

// TestEveryRouteHasItsLimits sends what no caller should to every route of every role. None of it may make a server error, and each route answers
// as package limits does.
func TestEveryRouteHasItsLimits(t *testing.T) {
	c := start(t, runtime.Roles)
	for _, name := range []string{"pilot", "x"} {
		c.call(http.MethodPut, c.admin(runtime.ControlPlane, "/profiles/"+name), profile.Profile{Name: name, Protocol: wire.Protocol}, nil)
	}
	c.call(http.MethodPut, c.admin(runtime.ControlPlane, "/participants/acme"), adminapi.Participant{DID: c.did("acme"), Profile: "pilot", FurtherProfiles: []string{"x"}, Active: true}, nil)
	var bomb bytes.Buffer
	gz := gzip.NewWriter(&bomb)
	_, _ = io.WriteString(gz, `{"a":"`+strings.Repeat("a", 64<<20)+`"}`)
	_ = gz.Close()
	all := routes(t)
	if len(all) < 60 {
		t.Fatalf("only %d routes were found in the sources: %v", len(all), all)
	}
	transport := &http.Transport{ExpectContinueTimeout: patience} // a body is sent once it is asked for
	defer transport.CloseIdleConnections()
	part := c.parts[runtime.ControlPlane]
	for _, route := range all {
		method, path := route[0], route[1]
		base := part.public
		for _, prefix := range []string{"/admin/", "/internal/", "/api/", "/management/", "/dataflows/"} {
			if strings.HasPrefix(path, prefix) {
				base = part.internal
			}
		}
		if path == "/livez" || path == "/readyz" || path == "/metrics" {
			base = part.health
		}
		for name, hostile := range map[string]struct {
			encoding, header, body string
			status                 int // 0: no server error
		}{
			"long":              {"", "", `{"a":"` + strings.Repeat("a", 2<<20) + `"}`, 0},
			"deep":              {"", "", strings.Repeat(`{"a":[`, 10_000), 0},
			"a bomb":            {"gzip", "", bomb.String(), 0},
			"not gzip":          {"gzip", "", `{"a":1}`, 0},
			"another encoding":  {"br", "", `{}`, http.StatusUnsupportedMediaType},
			"an endless header": {"", strings.Repeat("a", 128<<10), "", http.StatusRequestHeaderFieldsTooLarge},
		} {
			req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(hostile.body))
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range map[string]string{"Content-Type": "application/json", "Expect": "100-continue", "Authorization": "Bearer " + internalToken,
				"X-Api-Key": managementKey, "Content-Encoding": hostile.encoding, "X-Endless": hostile.header} {
				if v != "" {
					req.Header.Set(k, v)
				}
			}
			res, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
			if err != nil {
				t.Errorf("%s %s, %s: %v", method, path, name, err)
				continue
			}
			_ = res.Body.Close()
			stream := strings.Contains(path, "/data") || strings.HasSuffix(path, "/events")
			if res.StatusCode >= 500 || (hostile.status != 0 && res.StatusCode != hostile.status && (!stream || hostile.encoding == "")) {
				t.Errorf("%s %s, %s: answers %d", method, path, name, res.StatusCode)
			}
		}
	}
	if status := c.status(http.MethodGet, part.health+"/readyz", nil, nil); status != http.StatusOK {
		t.Errorf("afterwards the connector is not ready: %d", status)
	}
}
