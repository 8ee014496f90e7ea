// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

const mover = "mover"

// mover's connectors: what they keep is in the cells' databases and Vaults; what they and the EDC operator do is played.
type connectors struct {
	cells []*connectorOf
	runs  map[string]bool
	made  int
}

// work does what the objects in the cells' namespaces ask for, and reports it.
func (c *connectors) work(t *testing.T) {
	t.Helper()
	var active []string
	for _, at := range c.cells {
		var pc edc.ParticipantContext
		err := admin.Get(t.Context(), types.NamespacedName{Namespace: snapshot.Namespace(at.cell.Name), Name: mover}, &pc)
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		if apierrors.IsNotFound(err) {
			if c.runs[at.cell.Name] {
				at.forget(t, mover)
			}
			c.runs[at.cell.Name] = false
			continue
		}
		c.runs[at.cell.Name] = true
		var kid string
		err = at.conn.QueryRow(t.Context(), "SELECT kid FROM wallet.keys WHERE ctx = $1", mover).Scan(&kid)
		if errors.Is(err, pgx.ErrNoRows) {
			if c.made++; c.made > 1 {
				t.Fatalf("cell %s is to make it anew", at.cell.Name)
			}
			at.add(t, mover)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		state := `"status":"False","reason":"Inactive"`
		if pc.Spec.Active {
			active = append(active, at.cell.Name)
			state = `"status":"True","reason":"Active"`
		}
		host := at.cell.Spec.Hostname
		if pc.Spec.Hostname != "" {
			host = pc.Spec.Hostname
		}
		status := fmt.Sprintf(`{"status":{"observedGeneration":%d,"did":%q,"keyID":%q,
			"credentials":[{"type":"MembershipCredential","issuer":"did:web:authority.demo.example:issuer","state":"Valid"}],
			"conditions":[{"type":"Active",%s,"observedGeneration":%[1]d,"message":"as the spec says","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, pc.Generation, snapshot.DID(host, mover), kid, state)
		if err := admin.Status().Patch(t.Context(), &pc, client.RawPatch(types.MergePatchType, []byte(status))); client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
	}
	if len(active) > 1 {
		t.Fatalf("active in %s", active)
	}
}

// moves lets a participant move from the shared cell to the dedicated one and back.
func moves(t *testing.T) {
	shared, own := keptIn(t, "shared"), keptIn(t, "tier1")
	c := &connectors{cells: []*connectorOf{shared, own}, runs: map[string]bool{}}
	connector := &edc.Connector{ObjectMeta: metav1.ObjectMeta{Namespace: tier1, Name: snapshot.ConnectorName}}
	ready := `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Ready","message":"ok","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
	if err := admin.Status().Patch(t.Context(), connector, client.RawPatch(types.MergePatchType, []byte(ready))); err != nil {
		t.Fatal(err)
	}
	didDocs.publish("shared.demo.example", mover)
	p := &cloud.Participant{ObjectMeta: named(mover), Spec: cloud.ParticipantSpec{
		Organization: "tier1", Identity: cloud.Identity{Context: mover, BusinessPartnerNumber: "BPNL000000000007"}, Cell: "shared", Profile: "auto",
		Credentials: []edc.HolderCredential{{Type: "MembershipCredential", Claims: &apiextensionsv1.JSON{Raw: []byte(`{"memberOf":"auto"}`)}}},
	}}
	create(t, p)
	settles := func(cell string) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			c.work(t)
			err := condition(ctx, p, cloud.ConditionReady, metav1.ConditionTrue, "")
			if err == nil && (p.Status.Cell != cell || p.Status.Move != nil) {
				err = fmt.Errorf("it is in cell %s, %+v", p.Status.Cell, p.Status.Move)
			}
			return err
		})
	}
	settles("shared")
	onboarded := p.Status.Checks

	change(t, p, func() { p.Spec.Cell = "tier1" })
	settles("tier1")
	if p.Status.DID != "did:web:shared.demo.example:mover" || p.Status.ProtocolURL != "https://shared.demo.example/mover/dsp/2025-1" {
		t.Errorf("it is %s at %s", p.Status.DID, p.Status.ProtocolURL)
	}
	for i, k := range p.Status.Checks {
		if !k.PassedAt.Equal(onboarded[i].PassedAt) {
			t.Errorf("onboarded anew: %+v", k)
		}
	}
	var pc edc.ParticipantContext
	if err := errors.Join(admin.Get(t.Context(), types.NamespacedName{Namespace: tier1, Name: mover}, &pc), admin.Get(t.Context(), client.ObjectKeyFromObject(connector), connector)); err != nil {
		t.Fatal(err)
	}
	if hosts := connector.Spec.FurtherHosts; pc.Spec.Hostname != "shared.demo.example" || len(hosts) != 1 || hosts[0].Hostname != "shared.demo.example" {
		t.Errorf("it is served at %q, of %+v", pc.Spec.Hostname, hosts)
	}
	there := own.holds(t, mover)
	if there[len(there)-1] != "hush of mover" {
		t.Errorf("the cell has %s", there)
	}

	heir := &cloud.Participant{ObjectMeta: named("heir"), Spec: cloud.ParticipantSpec{
		Organization: "supplier", Identity: cloud.Identity{Context: mover, BusinessPartnerNumber: "BPNL000000000008"}, Cell: "shared", Profile: "auto",
	}}
	create(t, heir)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, heir, cloud.ConditionReady, metav1.ConditionFalse, cloud.ReasonTaken)
	})
	for _, k := range heir.Status.Conditions {
		if k.Type == cloud.ConditionReady && !strings.Contains(k.Message, "which was made there and has moved away") {
			t.Errorf("who would have its DID is told: %s", k.Message)
		}
	}
	if err := admin.Delete(t.Context(), heir); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error { return absent(ctx, heir) })

	own.record(t, mover) // what happened there comes along
	change(t, p, func() { p.Spec.Cell = "shared" })
	settles("shared")
	if now := shared.holds(t, mover); len(now) <= len(there) || now[len(now)-1] != "hush of mover" {
		t.Errorf("the cell has %s, after %s", now, there)
	}
	if err := admin.Delete(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		c.work(t)
		return absent(ctx, p)
	})
}
