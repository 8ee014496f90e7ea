// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/client"
)

func report() client.StatusReport {
	healthy := client.StatusHealth{State: "Healthy"}
	return client.StatusReport{Participants: []client.StatusParticipant{
		{Participant: "oem", Organization: "rheintal-motoren", DID: oemDID, Cell: "shared", CellType: "shared", OperatingParty: "Kaphera Cloud", Connector: healthy,
			Credentials: client.StatusCredentials{State: "Healthy", Items: []client.CredentialStatus{}}, Contracts: client.StatusContracts{State: "Healthy", Active: 2}, LastHeard: noon.Add(-4 * time.Second)},
		{Participant: "supplier", Organization: "brandt-guss", DID: supplierDID, Cell: "plant-7", CellType: "on-premise", OperatingParty: "Brandt Guss GmbH",
			Connector:   client.StatusHealth{State: "Failed", Reason: "not active: organization brandt-guss names no contact"},
			Credentials: client.StatusCredentials{State: "Warning", Reason: "MembershipCredential expires soon (2026-10-04)", Items: []client.CredentialStatus{}},
			Contracts:   client.StatusContracts{State: "Unknown", Failed: 1}},
	}}
}

func TestStatusIsOneTable(t *testing.T) {
	b := setup(t)
	b.answer("GET /api/v1/status", report())
	b.golden("status", b.run("status"))
	b.tty = true
	r := b.run("status")
	b.golden("status-tty", r)
	if !strings.Contains(r.out, "\x1b[") {
		t.Error("a terminal gets no colours")
	}
}

func TestNoColourWhereNoneIsWanted(t *testing.T) {
	b := setup(t)
	b.answer("GET /api/v1/status", report())
	if r := b.run("status"); strings.Contains(r.out+r.err, "\x1b[") {
		t.Errorf("escape codes in %q", r.out)
	}
}

func TestStructuredOutputIsWhatTheAPISays(t *testing.T) {
	b := setup(t)
	b.answer("GET /api/v1/status", report())
	for format, parse := range map[string]func([]byte, any) error{"json": json.Unmarshal, "yaml": func(raw []byte, v any) error { return yaml.Unmarshal(raw, v) }} {
		var got client.StatusReport
		r := b.run("status", "-o", format)
		if err := parse([]byte(r.out), &got); err != nil || len(got.Participants) != 2 || got.Participants[1].Connector.Reason != report().Participants[1].Connector.Reason {
			t.Errorf("%s: %v in %s", format, err, r.out)
		}
	}
	if r := b.run("status", "-o", "xml"); r.code != ExitUsage || !strings.Contains(r.err, `"xml"`) {
		t.Errorf("an unknown format: %d %s", r.code, r.err)
	}
}

func TestAnEmptyStatusSaysWhatToDo(t *testing.T) {
	b := setup(t)
	b.answer("GET /api/v1/status", client.StatusReport{Participants: []client.StatusParticipant{}})
	if r := b.run("status"); r.code != ExitOK || !strings.Contains(r.out, "There is no participant yet") {
		t.Errorf("%d %s", r.code, r.out)
	}
}

func TestEachFailureHasItsExitCodeAndTheNextStep(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(b *bundle)
		args    []string
		code    int
		words   string
	}{
		"the API is down": {func(b *bundle) { b.server.Close() }, []string{"status"}, ExitUnreachable, "does not answer"},
		"the address is no API": {func(b *bundle) {
			b.on("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusNotFound) })
		}, []string{"status"}, ExitNotFound, "no answer of a Cloud API"},
		"no address":          {func(b *bundle) { b.env = map[string]string{} }, []string{"status"}, ExitFailed, "KAPHERA_API"},
		"nobody is logged in": {func(b *bundle) { delete(b.env, "KAPHERA_CLIENT_ID") }, []string{"status"}, ExitLogin, "kaphera login"},
		"the token is refused": {func(b *bundle) {
			b.answer("POST /realm/token", map[string]any{"access_token": "other", "token_type": "Bearer"})
		}, []string{"status"}, ExitLogin, "not valid here"},
		"the client is refused": {func(b *bundle) {
			b.on("POST /realm/token", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"error":"unauthorized_client","error_description":"Invalid client secret"}`))
			})
		}, []string{"status"}, ExitLogin, "Invalid client secret"},
		"the identity provider is gone": {func(b *bundle) {
			b.on("GET /realm/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
		}, []string{"status"}, ExitLogin, "identity provider"},
		"not allowed": {func(b *bundle) {
			b.on("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, 403, "forbidden", "ci may not call get-status")
			})
		}, []string{"status"}, ExitLogin, "may not call"},
		"the cell is gone": {func(b *bundle) {
			b.on("GET /api/v1/participants/oem/assets", func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, 503, "cell-not-connected", `cell "shared" does not answer`)
			})
		}, []string{"get", "assets", "-p", "oem"}, ExitUnreachable, `cell "shared"`},
		"the connector fails": {func(b *bundle) {
			b.on("GET /api/v1/participants/oem/assets", func(w http.ResponseWriter, _ *http.Request) {
				refuse(w, 502, "connector-failed", "the connector answered 500")
			})
		}, []string{"get", "assets", "-p", "oem"}, ExitUnreachable, "answered 500"},
		"there is no such thing":      {func(*bundle) {}, []string{"get", "cell", "x"}, ExitNotFound, "there is no"},
		"an unknown command":          {func(*bundle) {}, []string{"frobnicate"}, ExitUsage, `unknown command "frobnicate"`},
		"an unknown flag":             {func(*bundle) {}, []string{"status", "--frobnicate"}, ExitUsage, "unknown flag"},
		"an unknown kind":             {func(*bundle) {}, []string{"get", "frobnications"}, ExitUsage, "use one of participants"},
		"a missing participant":       {func(*bundle) {}, []string{"get", "assets"}, ExitUsage, "--participant"},
		"a participant too many":      {func(*bundle) {}, []string{"get", "cells", "-p", "oem"}, ExitUsage, "leave --participant out"},
		"a missing argument":          {func(*bundle) {}, []string{"describe", "cell"}, ExitUsage, "see: kaphera describe --help"},
		"an unknown context":          {func(*bundle) {}, []string{"status", "--context", "mars"}, ExitLogin, `no context "mars"`},
		"a CA file that is not there": {func(b *bundle) { b.env["KAPHERA_CA_FILE"] = "/absent/ca.crt" }, []string{"status"}, ExitFailed, "/absent/ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			c.arrange(b)
			r := b.run(c.args...)
			if r.code != c.code || !strings.Contains(r.err, c.words) || !strings.HasPrefix(r.err, "error: ") {
				t.Errorf("exit %d, want %d: %s", r.code, c.code, r.err)
			}
			if c.code != ExitFailed && !strings.Contains(r.err, "next:") {
				t.Errorf("no next step: %s", r.err)
			}
			if strings.Contains(r.out+r.err, "ci-secret") {
				t.Error("the secret is shown")
			}
		})
	}
}

func TestExitCodesAreDocumented(t *testing.T) {
	b := setup(t)
	r := b.run("help", "exit-codes")
	for _, code := range []string{"  0 ", "  1 ", "  2 ", "  3 ", "  4 ", "  5 ", "  6 ", "  130 "} {
		if !strings.Contains(r.out, code) {
			t.Errorf("code %s is not in %s", code, r.out)
		}
	}
}

func TestCompletionIsBuiltIn(t *testing.T) {
	b := setup(t)
	if r := b.run("completion", "bash"); r.code != ExitOK || !strings.Contains(r.out, "kaphera") {
		t.Errorf("%d %s", r.code, r.err)
	}
	if r := b.run("__complete", "get", ""); !strings.Contains(r.out, "negotiations") {
		t.Errorf("completes %s", r.out)
	}
}
