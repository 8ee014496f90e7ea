// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"testing"
)

// StartEDC starts a connector of EDC: control plane and data plane in one process, everything in memory. Where wait is given, its state
// machines look for work after so many milliseconds instead of 1000.
func StartEDC(t *testing.T, name, profile string, classes []string, id string, wait int, settings map[string]string) *Connector {
	t.Helper()
	all := map[string]string{
		"edc.participant.id": id, "edc.hostname": "127.0.0.1",
		"edc.transfer.proxy.token.signer.privatekey.alias": "private-key", "edc.transfer.proxy.token.verifier.publickey.alias": "public-key",
	}
	maps.Copy(all, settings)
	if wait > 0 {
		for _, machine := range []string{"edc.negotiation.consumer", "edc.negotiation.provider", "edc.transfer", "edc.dataplane"} {
			all[machine+".state-machine.iteration-wait-millis"] = strconv.Itoa(wait)
		}
	}
	base := WebContexts(t, all, "", "control", "management", "protocol", "version", "public")
	c := &Connector{Name: "EDC", ID: id, Address: base["protocol"] + "/2025-1", management: base["management"] + "/v3", key: rand.Text(),
		own: func(t *testing.T, method, path string, in, _ any) {
			t.Helper()
			if status, raw, err := Send(method, base["control"]+path, nil, in); err != nil || status/100 != 2 {
				t.Fatalf("EDC: %s %s answered %d: %s %v", method, path, status, raw, err)
			}
		}}
	all["edc.dsp.callback.address"] = base["protocol"]
	all["web.http.management.auth.type"], all["web.http.management.auth.key"] = "tokenbased", c.key
	c.Process = Java(t, name, profile, classes, all)
	// EDC's readiness comes before its APIs do.
	c.Process.Ready(t, func() error { return c.Try(http.MethodPost, "/assets/request", Object{"@type": "QuerySpec"}, nil) })
	return c
}

// WebContexts gives each web context of a runtime a port and a path, and returns their addresses.
func WebContexts(t *testing.T, settings map[string]string, names ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range names {
		key, path := "web.http."+name, "/"+name
		if name == "" {
			key, path = "web.http", "/api"
		}
		port := freePort(t)
		settings[key+".port"], settings[key+".path"] = strconv.Itoa(port), path
		out[name] = fmt.Sprintf("http://127.0.0.1:%d%s", port, path)
	}
	return out
}

// MockEDC is a connector of EDC with its mock identity.
func MockEDC(t *testing.T, name string, wait int) *Connector {
	t.Helper()
	// The bare name would not do: "edc" is a term of EDC's own JSON-LD context, so it cannot read it as an id.
	return StartEDC(t, name, "mock", []string{"Loopback", "DataEndpoint"}, "did:web:"+name+".example", wait, nil)
}
