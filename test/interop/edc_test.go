// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package interop

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"testing"
)

// startEDC starts a connector of EDC: control plane and data plane in one process, everything in memory. Where wait is given, its state
// machines look for work after so many milliseconds instead of 1000.
func startEDC(t *testing.T, name, profile string, classes []string, id string, wait int, settings map[string]string) *connector {
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
	base := webContexts(t, all, "", "control", "management", "protocol", "version", "public")
	c := &connector{name: "EDC", id: id, address: base["protocol"] + "/2025-1", management: base["management"] + "/v3", key: rand.Text()}
	all["edc.dsp.callback.address"] = base["protocol"]
	all["web.http.management.auth.type"], all["web.http.management.auth.key"] = "tokenbased", c.key
	c.process = java(t, name, profile, classes, all)
	// EDC's readiness comes before its APIs do.
	c.process.ready(t, func() error { return c.try(http.MethodPost, "/assets/request", object{"@type": "QuerySpec"}, nil) })
	return c
}

// webContexts gives each web context of a runtime a port and a path, and returns their addresses.
func webContexts(t *testing.T, settings map[string]string, names ...string) map[string]string {
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
