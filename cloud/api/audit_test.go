// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/audit"
)

func TestTheAuditTrailComesAsTheCellGivesIt(t *testing.T) {
	b := setup(t)
	b.pilot()
	const lines = "{\"chain\":\"c\",\"seq\":1,\"body\":{\"a\":\"\\u003c\"}}\n{\"head\":{}}\n"
	var query, actor string
	b.connector.On("GET brandt/audit", func(r *http.Request) (int, any) {
		query, actor = r.URL.RawQuery, r.Header.Get(adminapi.ActorHeader)
		return http.StatusOK, []byte(lines)
	})
	if a := b.want(http.StatusOK, b.call(brandt, "GET", "/participants/supplier/audit?after=7", nil)); string(a.body) != lines || query != "after=7&last=0&limit=1000" {
		t.Errorf("asked %s, answered %s", query, a.body)
	}
	if want := "user:" + brandt["sub"].(string); actor != want {
		t.Errorf("the connector was told of %q, want %q", actor, want)
	}
	program := map[string]any{"sub": "sub-ci", "azp": "ci", "preferred_username": "service-account-ci", "roles": []string{"platform-operator"}}
	if b.want(http.StatusOK, b.call(program, "GET", "/participants/supplier/audit", nil)); actor != "client:ci" {
		t.Errorf("the connector was told of %q, want the program", actor)
	}
	head := audit.Head{Chain: "c", Ctx: "brandt", Seq: 1, At: time.Unix(1, 0).UTC(), Hash: "ab", Open: true}
	b.connector.Report(head)
	got := decodeTo[List[audit.Head]](t, b.want(http.StatusOK, b.call(viewer, "GET", "/participants/supplier/audit/heads", nil)))
	if len(got.Items) != 1 || got.Items[0] != head {
		t.Errorf("%+v", got)
	}
	for _, path := range []string{"/participants/oem/audit", "/participants/oem/audit/heads"} { // another organization's
		if a := b.call(brandt, "GET", path, nil); a.status/100 == 2 || strings.Contains(string(a.body), "chain") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}
