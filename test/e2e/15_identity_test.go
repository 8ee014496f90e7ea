// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"net/http"
	"path/filepath"
	"testing"
)

// From outside people and programs log in to the realm; nothing else of the identity provider answers.
func TestOnlyLogInIsPublic(t *testing.T) {
	ca := readFile(t, filepath.Join(dir, "ca.crt"))
	for path, public := range map[string]bool{
		"/realms/kaphera/.well-known/openid-configuration": true,
		"/realms/kaphera/protocol/openid-connect/certs":    true,
		"/realms/master": false,
		"/realms/master/protocol/openid-connect/certs": false,
		"/admin/realms/kaphera":                        false,
		"/admin/master/console/":                       false,
		"/realms/kaphera/../master":                    false,
		"/realms/kaphera/%2e%2e/master":                false,
		"/realms/kaphera/..;/master":                   false,
		"/metrics":                                     false,
		"/":                                            false,
	} {
		status, body := publicGet(t, ca, "https://id."+domain()+path)
		if ok := status == http.StatusOK; ok != public || !public && status < http.StatusBadRequest {
			t.Errorf("%s answers %d %s", path, status, body)
		}
	}
}
