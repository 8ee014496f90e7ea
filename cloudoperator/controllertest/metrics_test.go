// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
)

// measured scrapes the operator, and the agent at an address.
func measured(t *testing.T, agent string) {
	cell := &cloud.Cell{ObjectMeta: named("shared")}
	var expires []string
	for _, secret := range []string{parts.SecretCA, parts.TLSSecret(parts.PostgreSQL), parts.TLSSecret(parts.NATS), parts.TLSSecret(parts.OpenBao)} {
		var s corev1.Secret
		if err := admin.Get(t.Context(), types.NamespacedName{Namespace: system, Name: secret}, &s); err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(s.Data[corev1.TLSCertKey])
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		expires = append(expires, fmt.Sprintf("kaphera_certificate_expiration_timestamp_seconds{secret=%q} %s", secret, strconv.FormatFloat(float64(cert.NotAfter.Unix()), 'g', -1, 64)))
	}
	eventually(t, func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(cell), cell); err != nil {
			return err
		}
		return errors.Join(
			scrape(ctx, metrics, append(expires,
				`kaphera_cells{state="ready",type="shared"} 1`,
				`kaphera_cells{state="silent",type="on-premise"} 0`,
				fmt.Sprintf(`kaphera_cell_revision_published{cell="shared"} %d`, cell.Status.Revision),
				fmt.Sprintf(`kaphera_cell_revision_applied{cell="shared"} %d`, cell.Status.Revision),
				`kaphera_cell_last_heard_timestamp_seconds{cell="shared"} `,
				`controller_runtime_reconcile_errors_total{controller="cell"} `,
			)...),
			scrape(ctx, agent,
				`kaphera_agent_connected 1`,
				fmt.Sprintf(`kaphera_agent_revision_seen %d`, cell.Status.Revision),
				fmt.Sprintf(`kaphera_agent_revision_applied %d`, cell.Status.Revision),
				`kaphera_agent_apply_seconds_count{outcome="applied"} `,
				`kaphera_agent_audit_records_waiting 0`,
				`kaphera_agent_calls_total{call="query",outcome="executed"} `,
				`kaphera_agent_calls_total{call="query",outcome="refused"} `,
				`go_goroutines `,
			),
		)
	})
}

// scrape wants lines that are, or begin with, these.
func scrape(ctx context.Context, address string, lines ...string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	var errs []error
	for _, l := range lines {
		end := "\n"
		if strings.HasSuffix(l, " ") {
			end = ""
		}
		if !strings.Contains("\n"+string(body), "\n"+l+end) {
			errs = append(errs, fmt.Errorf("%s has no %s", address, l))
		}
	}
	return errors.Join(errs...)
}
