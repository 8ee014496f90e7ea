// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kaphera/kaphera/connector/netguard"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/reach"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// does is what a role does in the Vault.
var does = map[workload.Role]vault.Access{
	workload.ControlPlane: vault.StoreSecrets, workload.Wallet: vault.UseKeys, workload.DataPlane: vault.ReadSecrets, workload.Issuer: vault.UseKeys,
}

// Keys under which a role's credentials are kept in vaultLogins, besides those of Secrets.
const keyJWT = "jwt"

// vaultAddress also prepares the roles' clients, which connect to nothing yet.
func (p *preflight) vaultAddress(ctx context.Context) finding {
	v := p.Runtime.Vault
	u, err := url.Parse(v.Address)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
		return failed("write it as https://vault.example:8200", "spec.vault.address is no http(s) address")
	}
	p.vaults = map[workload.Role]*vault.Client{}
	for _, role := range p.Runtime.Roles {
		if p.vaults[role], err = p.vaultClient(role); err != nil {
			return failed("correct the manifest", "spec.vault: %v", err)
		}
	}
	return p.reach(ctx, net.JoinHostPort(u.Hostname(), strconv.Itoa(int(netguard.Port(u)))), "spec.vault.address")
}

// vaultClient reads the credentials when it logs in; they are named after where they come from.
func (p *preflight) vaultClient(role workload.Role) (*vault.Client, error) {
	rt := p.Runtime
	c := rt.Config(role).Vault
	name, _ := rt.VaultSecret(role)
	from := func(key string) string { return fmt.Sprintf("Secret %s/%s, key %s", rt.Namespace, name, key) }
	auth := vault.Auth{Method: c.Auth.Method, MountPath: c.Auth.MountPath, Role: c.Auth.Role,
		TokenFile: from(workload.KeyToken), RoleIDFile: from(workload.KeyRoleID), SecretIDFile: from(workload.KeySecretID),
		ServiceAccountTokenFile: fmt.Sprintf("service account %s/%s, key %s", rt.Namespace, rt.ObjectName(role), keyJWT),
		ReadFile: func(file string) ([]byte, error) {
			return []byte(p.vaultLogins[role][file[strings.LastIndex(file, " ")+1:]]), nil
		},
	}
	return vault.New(vault.Config{Address: c.Address, Namespace: c.Namespace, Mount: c.Mount, Prefix: c.Prefix, CAPEM: rt.Vault.CABundle,
		Access: []vault.Access{does[role]}, Auth: auth})
}

// vaultHTTP calls the Vault without a login.
func (p *preflight) vaultHTTP() (*http.Client, error) {
	roots, err := reach.Pool(p.Runtime.Vault.CABundle)
	if err != nil {
		return nil, fmt.Errorf("spec.vault.caBundle %w", err)
	}
	return &http.Client{Timeout: p.timeout, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
	}}, nil
}

// vaultCall makes a call without a login and returns status and answer.
func (p *preflight) vaultCall(ctx context.Context, method, path string, body []byte) (int, []byte, error) {
	c, err := p.vaultHTTP()
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(p.Runtime.Vault.Address, "/")+"/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if ns := p.Runtime.Vault.Namespace; ns != "" && path != healthPath { // health is asked for outside of any namespace
		req.Header.Set("X-Vault-Namespace", ns)
	}
	resp, err := p.timed("the Vault", c, req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, raw, err
}

const healthPath = "sys/health?standbyok=true&perfstandbyok=true"

func (p *preflight) vaultTLS(ctx context.Context) finding {
	u, err := url.Parse(p.Runtime.Vault.Address)
	if err != nil {
		return failed("write it as https://vault.example:8200", "spec.vault.address is no http(s) address")
	}
	if u.Scheme == "http" {
		return warning("give the Vault a certificate and use https, unless nobody else is on the way", "%s is plain HTTP: tokens and private keys travel readable", p.Runtime.Vault.Address)
	}
	roots, err := reach.Pool(p.Runtime.Vault.CABundle)
	if err != nil {
		return failed("put the PEM of the authority into it", "spec.vault.caBundle %v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	address := net.JoinHostPort(u.Hostname(), strconv.Itoa(int(netguard.Port(u))))
	d := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		if f, ok := untrusted(err, "spec.vault.caBundle"); ok {
			f.detail = address + ": " + f.detail
			return f
		}
		return p.unreachable(err, address, "spec.vault.address")
	}
	defer func() { _ = conn.Close() }()
	return certificate(conn.(*tls.Conn).ConnectionState(), address)
}

func (p *preflight) vaultStatus(ctx context.Context) finding {
	address := p.Runtime.Vault.Address
	status, raw, err := p.vaultCall(ctx, http.MethodGet, healthPath, nil)
	if err != nil {
		return p.unreachable(err, address, "spec.vault.address")
	}
	var health struct {
		Initialized *bool  `json:"initialized"`
		Sealed      bool   `json:"sealed"`
		Version     string `json:"version"`
	}
	switch {
	case json.Unmarshal(raw, &health) != nil || health.Initialized == nil:
		return failed("check spec.vault.address: it may be that of another server, or lack a path", "%s answers %d to /v1/sys/health, which no Vault does", address, status).retry()
	case !*health.Initialized:
		return failed("initialise it: bao operator init", "the Vault at %s is not initialised", address)
	case health.Sealed:
		return failed("unseal it: bao operator unseal", "the Vault at %s is sealed", address)
	}
	return passed("%s is initialised and unsealed, version %s", address, health.Version)
}

// vaultAuth finds out whether there is the auth method: one that is there complains of what an empty login lacks; where there is none, the
// Vault forbids the path or knows none. OpenBao says of AppRole that it lacks something by 500.
func (p *preflight) vaultAuth(ctx context.Context) finding {
	a := p.Runtime.Vault.Auth
	if a.Method == v1alpha1.VaultMethodToken {
		return passed("method Token needs no auth mount")
	}
	mount := strings.Trim(a.MountPath, "/")
	if mount == "" {
		mount = strings.ToLower(a.Method)
	}
	status, _, err := p.vaultCall(ctx, http.MethodPost, "auth/"+mount+"/login", []byte("{}"))
	switch {
	case err != nil:
		return p.unreachable(err, p.Runtime.Vault.Address, "spec.vault.address")
	case status == http.StatusForbidden || status == http.StatusNotFound:
		return failed(fmt.Sprintf("correct spec.vault.auth.mountPath and spec.vault.namespace, or enable it there: bao auth enable -path=%s %s", mount, strings.ToLower(a.Method)),
			"there is no auth method at auth/%s%s: a login is answered %d", mount, p.inNamespace(), status)
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout:
		return failed("see the log of the Vault", "a login at auth/%s is answered %d", mount, status).retry()
	}
	return passed("there is an auth method at auth/%s%s", mount, p.inNamespace())
}

func (p *preflight) inNamespace() string {
	if ns := p.Runtime.Vault.Namespace; ns != "" {
		return " in namespace " + ns
	}
	return ""
}

// vaultCredentials gathers what the roles log in with: Secrets, or tokens of their service accounts.
func (p *preflight) vaultCredentials(ctx context.Context) finding {
	p.vaultLogins = map[workload.Role]map[string]string{}
	var from []string
	for _, role := range p.Runtime.Roles {
		name, keys := p.Runtime.VaultSecret(role)
		if name == "" {
			token, f := p.serviceAccountToken(ctx, p.Runtime.ObjectName(role))
			if f.result != "" {
				return f
			}
			p.vaultLogins[role] = map[string]string{keyJWT: token}
			from = append(from, "service account "+p.Runtime.ObjectName(role))
			continue
		}
		data, f := p.secret(ctx, name, keys...)
		if f.result != "" {
			return f
		}
		p.vaultLogins[role] = data
		if s := "Secret " + name; !slices.Contains(from, s) {
			from = append(from, s)
		}
	}
	return passed("%s", strings.Join(from, ", "))
}

// serviceAccountToken asks for a token as the role's Pods get it.
func (p *preflight) serviceAccountToken(ctx context.Context, name string) (string, finding) {
	ns := p.Runtime.Namespace
	if p.cluster == nil {
		return "", skipped("method %s logs in with tokens of the cluster, and the cluster is not reached from here", p.Runtime.Vault.Auth.Method)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{p.Runtime.Vault.Auth.Audience}, ExpirationSeconds: ptr.To[int64](600),
	}}
	err := p.cluster.SubResource("token").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}, request)
	switch {
	case apierrors.IsNotFound(err):
		return "", skipped("service account %s/%s is not there yet: the operator makes it, and the roles try the login when they start (condition VaultReady)", ns, name)
	case apierrors.IsForbidden(err):
		return "", skipped("this account may not create serviceaccounts/token in %s, with which the login of %s would be tried; the roles try it when they start (condition VaultReady)", ns, name)
	case err != nil:
		return "", failed("try again", "token of service account %s/%s: %v", ns, name, err).retry()
	}
	return request.Status.Token, finding{}
}

func (p *preflight) vaultLogin(ctx context.Context) finding {
	return p.asRoles(ctx, "check spec.vault.auth and spec.vault.namespace, and that what is logged in with is still valid and bound to this place", "logged in as %s",
		func(ctx context.Context, c *vault.Client) error { return c.Login(ctx) })
}

func (p *preflight) vaultMount(ctx context.Context) finding {
	return p.asRoles(ctx, fmt.Sprintf("correct spec.vault.mount, or make one there: bao secrets enable -path=%s kv-v2", p.Runtime.Vault.Mount),
		"nothing speaks against a KV engine of version 2 at "+p.Runtime.Vault.Mount+", for %s",
		func(ctx context.Context, c *vault.Client) error { return c.CheckMount(ctx) })
}

// asRoles does something as each role; %s in good is the roles.
func (p *preflight) asRoles(ctx context.Context, remedy, good string, do func(context.Context, *vault.Client) error) finding {
	var names, wrong []string
	var answer *vault.AnswerError
	refused := false // what is asked again counts as another failed login
	who := map[string][]string{}
	for _, role := range p.Runtime.Roles {
		names = append(names, string(role))
		if err := do(ctx, p.vaults[role]); err != nil {
			if who[err.Error()] == nil {
				wrong = append(wrong, err.Error())
			}
			who[err.Error()] = append(who[err.Error()], string(role))
			refused = refused || errors.As(err, &answer) && answer.Status < http.StatusInternalServerError
		}
	}
	if len(wrong) == 0 {
		return passed(good, strings.Join(names, ", "))
	}
	for i, text := range wrong {
		wrong[i] = strings.Join(who[text], ", ") + ": " + text
	}
	f := failed(remedy, "%s", sentences(wrong))
	f.again = !refused
	return f
}

// probeOwner is in whose name the probes are written: one that no participant context can have.
const probeOwner = "Kaphera_preflight"

// vaultAccess asks for the rights of each role, and uses them: a key is made, read and deleted, and a secret stored by one role, read by
// another and deleted.
func (p *preflight) vaultAccess(ctx context.Context) finding {
	v := p.Runtime.Vault
	var policies []string
	for _, role := range p.Runtime.Roles {
		policies = append(policies, string(role)+": "+oneLine(vault.Policy(v.Mount, v.Prefix, does[role])))
	}
	remedy := "give the logins these policies: " + strings.Join(policies, " ")
	if f := p.asRoles(ctx, remedy, "%s", func(ctx context.Context, c *vault.Client) error { return c.CheckPolicy(ctx) }); f.result == Failed {
		return f
	}
	name := "probe-" + rand.Text()[:12]
	var err error
	for _, role := range []workload.Role{workload.Wallet, workload.Issuer} {
		if c := p.vaults[role]; c != nil {
			err = errors.Join(err, use(ctx, c, c, probeOwner+"/keys/"+name))
		}
	}
	if c := p.vaults[workload.ControlPlane]; c != nil {
		err = errors.Join(err, use(ctx, c, p.vaults[workload.DataPlane], probeOwner+"/secrets/"+name))
	}
	if err != nil {
		return failed(remedy, "%v", err).retry()
	}
	return passed("a probe below %s/%s was written, read and deleted", v.Mount, v.Prefix)
}

// use writes a probe, reads it and deletes it, whatever came of the rest.
func use(ctx context.Context, writes, reads vault.KV, path string) (err error) {
	want := map[string]string{"value": rand.Text()}
	if err := writes.Write(ctx, path, want); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		if gone := writes.Delete(ctx, path); gone != nil {
			err = errors.Join(err, fmt.Errorf("delete %s, which is left: %w", path, gone))
		}
	}()
	got, err := reads.Read(ctx, path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if got["value"] != want["value"] {
		return fmt.Errorf("read %s: another value came back than was written", path)
	}
	return nil
}

func (p *preflight) vaultIsolation(ctx context.Context) finding {
	v := p.Runtime.Vault
	f := p.asRoles(ctx, "bind the logins to policies of paths below "+v.Mount+"/+/"+v.Prefix+"/ only, and to no root token", "%s reach nothing beside "+v.Mount+"/"+v.Prefix,
		func(ctx context.Context, c *vault.Client) error { return c.CheckConfined(ctx) })
	if f.result == Failed {
		f.result = Warning
	}
	return f
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 256 << 10

// sample is a clock that was read: at a moment between from and to of this machine's.
type sample struct {
	whose    string
	from, to time.Time
	at       time.Time
	within   time.Duration // the clock shows no less than at, and less than at + within
}
