// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/controller/outcome"
	"github.com/kaphera/kaphera/edcoperator/reach"
	"github.com/kaphera/kaphera/edcoperator/runtimeclient"
)

const vaultTimeout = 5 * time.Second

// Vault asks the Vault for its health, before anything that depends on it is deployed. Only an answer that settles the matter stops:
// an address that merely does not answer from here (the operator may be kept from it by a network policy) is left to the roles, which
// probe login, mount and policy as themselves and report them at /readyz.
func (r *Runner) Vault(ctx context.Context, v v1alpha1.Vault) error {
	roots, err := reach.Pool(v.CABundle)
	if err != nil {
		return outcome.Terminal(v1alpha1.ConditionVaultReady, v1alpha1.ReasonVaultUnreachable, "spec.vault.caBundle: %v", err)
	}
	transport := runtimeclient.Transport(r.Dial, roots)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(v.Address, "/")+"/v1/sys/health?standbyok=true&perfstandbyok=true", nil)
	if err != nil {
		return outcome.Terminal(v1alpha1.ConditionVaultReady, v1alpha1.ReasonVaultUnreachable, "spec.vault.address %q: %v", v.Address, err)
	}
	resp, err := (&http.Client{Transport: transport, Timeout: vaultTimeout}).Do(req)
	if err != nil {
		if reach.TimedOut(err) {
			return nil
		}
		return outcome.Waiting(RetryLate, v1alpha1.ConditionVaultReady, v1alpha1.ReasonVaultUnreachable,
			"the Vault at %s cannot be reached: %s", v.Address, explain(err, "spec.vault.caBundle"))
	}
	defer func() { _ = resp.Body.Close() }()
	var health struct {
		Initialized *bool `json:"initialized"`
		Sealed      bool  `json:"sealed"`
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	switch {
	case err != nil || json.Unmarshal(raw, &health) != nil || health.Initialized == nil:
		return outcome.Waiting(RetryLate, v1alpha1.ConditionVaultReady, v1alpha1.ReasonVaultUnreachable,
			"%s answered %s to %s, which no Vault does: check spec.vault.address", v.Address, resp.Status, req.URL.Path)
	case !*health.Initialized:
		return outcome.Waiting(RetryLate, v1alpha1.ConditionVaultReady, v1alpha1.ReasonVaultSealed,
			"the Vault at %s is not initialised: run its operator init first", v.Address)
	case health.Sealed:
		return outcome.Waiting(RetryLate, v1alpha1.ConditionVaultReady, v1alpha1.ReasonVaultSealed, "the Vault at %s is sealed: unseal it", v.Address)
	}
	return nil
}

// VaultAnswers clears what an earlier look at the Vault found; whether the roles may use it is theirs to say.
func VaultAnswers(o outcome.Object) {
	was := meta.FindStatusCondition(*o.GetConditions(), v1alpha1.ConditionVaultReady)
	if was != nil && was.Status != metav1.ConditionTrue && was.Reason != v1alpha1.ReasonVaultRefused {
		outcome.Set(o, was.Type, metav1.ConditionUnknown, v1alpha1.ReasonNotReached, "not looked at yet: the roles have not tried to log in")
	}
}

// explain turns the error of an HTTP call into one sentence that says what to do; trust names the field with the authorities.
func explain(err error, trust string) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var expired x509.CertificateInvalidError
	var dns *net.DNSError
	switch {
	case errors.As(err, &unknown):
		return fmt.Sprintf("its certificate is signed by an authority that %s does not hold", trust)
	case errors.As(err, &name):
		return "its certificate is for another host name: " + name.Error()
	case errors.As(err, &expired):
		return "its certificate is not valid: " + expired.Error()
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("no host of the name %s is known to the cluster's DNS", dns.Name)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "it answers plain HTTP, not HTTPS"
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}
