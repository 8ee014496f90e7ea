// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/reach"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

const didTimeout = 5 * time.Second

// Published fetches a DID document from its public address, as others do, and checks that it is about its own DID. It returns what is
// wrong, for people; empty when nothing is.
func (r *Runner) Published(ctx context.Context, e v1alpha1.Exposure, trust v1alpha1.Trust, id string) string {
	roots, err := reach.Pool(trust.CABundle)
	if err != nil {
		return "spec.trust.caBundle " + err.Error()
	}
	transport := runtimeclient.Transport(r.Dial, roots)
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: didTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	url := workload.DIDURL(e, id)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Sprintf("%s: %v", url, err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Sprintf("%s cannot be reached: %s", url, explain(err, "spec.trust.caBundle"))
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("%s answers %s: check that the ingress controller serves this host", url, resp.Status)
	}
	var doc struct {
		ID string `json:"id"`
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Sprintf("%s: the answer breaks off: %v", url, err)
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Sprintf("%s answers with no DID document: %v", url, err)
	}
	if did := workload.DID(e, id); doc.ID != did {
		return fmt.Sprintf("%s answers with the DID document of %q, not of %q", url, doc.ID, did)
	}
	return ""
}
