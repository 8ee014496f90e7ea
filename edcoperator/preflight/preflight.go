// SPDX-License-Identifier: Apache-2.0

// Package preflight checks everything that a connector or an issuer stands on, before anything is deployed: Kubernetes, the Vault,
// PostgreSQL, the ways to counterparts and to the cloud, and the clocks. What is checked is what the custom resource says. One function a
// check; each has a result, what was seen, and the next step. Nothing is changed but for a secret below the Vault's prefix, which is removed
// again, and a transaction in the database, which is rolled back. No secret is in a result.
package preflight

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/edcoperator/config"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Outcome of a check.
type Outcome string

// Outcomes. Skipped: it could not be looked at; the detail says why.
const (
	Passed  Outcome = "passed"
	Warning Outcome = "warning"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Check is one check with what came of it.
type Check struct {
	Name     string  `json:"name"`
	Result   Outcome `json:"result"`
	Required bool    `json:"required"` // nothing is to be deployed while it fails
	Detail   string  `json:"detail"`
	Remedy   string  `json:"remedy,omitempty"`
}

// Report is all checks, in the order of Names.
type Report struct {
	Checks []Check `json:"checks"`
}

// Failed are the required checks that failed.
func (r Report) Failed() []Check {
	var out []Check
	for _, c := range r.Checks {
		if c.Required && c.Result == Failed {
			out = append(out, c)
		}
	}
	return out
}

// Options say what is checked.
type Options struct {
	// Runtime is the connector or issuer, as Read gives it.
	Runtime workload.Runtime
	// Secrets are the contents of Secrets of its namespace, by name and key; those that are not here are read from the cluster.
	Secrets map[string]map[string]string
	// Cell is the on-premise cell that the connector is of, with whose namespace alone the operator works; empty where it is of none.
	Cell string
	// Installer are the rights of whoever installs Cell after an administrator has given the operators theirs; nil where they are not known, for the
	// reason InstallerUnknown.
	Installer        []config.Rights
	InstallerUnknown string
	// Cluster is nil where none can be reached: what needs it is skipped.
	Cluster *rest.Config
	// Counterparts are the DIDs (did:web) of participants to which there must be a way.
	Counterparts []string
	// Cloud is the address (https) that the cell's agent connects to, through Proxy (http or https, with user and password if need be) unless
	// that is empty.
	Cloud, Proxy string
	// ProxySecret names the Secret with the proxy's log-in under the key credentials (user:password), where Proxy has none. ProxyCA is PEM of the
	// authorities of an https proxy; empty trusts the system's.
	ProxySecret, ProxyCA string
	// PlatformTrust says that the connector trusts what its platform does, which the manifest does not say: put it into Runtime.Trust.CABundle.
	PlatformTrust bool
	// CloudCA is PEM of the authorities of the cloud's certificate; empty trusts the system's.
	CloudCA string
	// Skip says which checks are left out, unless nil.
	Skip func(check string) bool
	// Progress is told of each check when it ends, unless nil; one call at a time.
	Progress func(Check)

	// For tests: counterparts may have loopback addresses, and a call may take longer than callTimeout.
	loopback bool
	timeout  time.Duration
}

const (
	callTimeout  = 10 * time.Second // of one connection or call
	checkTimeout = 9                // of a check, retries included, in callTimeouts
	attempts     = 3
	firstPause   = 500 * time.Millisecond // doubled after each attempt
)

// kind is a check: what it needs to have gone well, after what it comes in any case, and its function.
type kind struct {
	name     string
	required bool
	needs    []string
	after    []string
	run      func(*preflight, context.Context) finding
}

// kinds are all checks, in the order in which they are shown. docs/preflight.md describes each.
var kinds = []kind{
	{name: "kubernetes-version", required: true, run: (*preflight).kubernetesVersion},
	{name: "kubernetes-permissions", required: true, needs: []string{"kubernetes-version"}, run: (*preflight).kubernetesPermissions},
	{name: "ingress-class", required: true, needs: []string{"kubernetes-version"}, run: (*preflight).ingressClass},
	{name: "image-pull-secrets", required: true, needs: []string{"kubernetes-version"}, run: (*preflight).imagePullSecrets},
	{name: "hostname", run: (*preflight).hostname},
	{name: "vault-address", required: true, run: (*preflight).vaultAddress},
	{name: "vault-tls", required: true, needs: []string{"vault-address"}, run: (*preflight).vaultTLS},
	{name: "vault-status", required: true, needs: []string{"vault-tls"}, run: (*preflight).vaultStatus},
	{name: "vault-auth", required: true, needs: []string{"vault-status"}, run: (*preflight).vaultAuth},
	{name: "vault-credentials", required: true, after: []string{"kubernetes-version"}, run: (*preflight).vaultCredentials},
	{name: "vault-login", required: true, needs: []string{"vault-auth", "vault-credentials"}, run: (*preflight).vaultLogin},
	{name: "vault-mount", required: true, needs: []string{"vault-login"}, run: (*preflight).vaultMount},
	{name: "vault-access", required: true, needs: []string{"vault-mount"}, run: (*preflight).vaultAccess},
	{name: "vault-isolation", needs: []string{"vault-access"}, run: (*preflight).vaultIsolation},
	{name: "postgresql-address", required: true, run: (*preflight).postgresqlAddress},
	{name: "postgresql-tls", required: true, needs: []string{"postgresql-address"}, run: (*preflight).postgresqlTLS},
	{name: "postgresql-credentials", required: true, after: []string{"kubernetes-version"}, run: (*preflight).postgresqlCredentials},
	{name: "postgresql-login", required: true, needs: []string{"postgresql-tls", "postgresql-credentials"}, run: (*preflight).postgresqlLogin},
	{name: "postgresql-version", required: true, needs: []string{"postgresql-login"}, run: (*preflight).postgresqlVersion},
	{name: "postgresql-rights", required: true, needs: []string{"postgresql-login"}, run: (*preflight).postgresqlRights},
	{name: "postgresql-connections", required: true, needs: []string{"postgresql-login"}, run: (*preflight).postgresqlConnections},
	{name: "counterpart-did", required: true, run: (*preflight).counterpartDID},
	{name: "counterpart-dsp", required: true, needs: []string{"counterpart-did"}, run: (*preflight).counterpartDSP},
	{name: "proxy", required: true, after: []string{"kubernetes-version"}, run: (*preflight).proxy},
	{name: "cloud", required: true, after: []string{"proxy"}, run: (*preflight).cloud},
	{name: "clock", required: true, after: []string{"kubernetes-version", "vault-status", "postgresql-login", "counterpart-did", "cloud"}, run: (*preflight).clock},
}

// finding is what a check came to.
type finding struct {
	result         Outcome
	detail, remedy string
	again          bool // it may go another way when tried again
}

func passed(format string, args ...any) finding {
	return finding{result: Passed, detail: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) finding {
	return finding{result: Skipped, detail: fmt.Sprintf(format, args...)}
}

func warning(remedy, format string, args ...any) finding {
	return finding{result: Warning, detail: fmt.Sprintf(format, args...), remedy: remedy}
}

func failed(remedy, format string, args ...any) finding {
	return finding{result: Failed, detail: fmt.Sprintf(format, args...), remedy: remedy}
}

// retry marks a failure that may pass.
func (f finding) retry() finding {
	f.again = true
	return f
}

// preflight is one run. A field is written by the check that is named there, and read by those that need it.
type preflight struct {
	Options
	cluster     client.Client                          // kubernetes-version
	vaults      map[workload.Role]*vault.Client        // vault-address
	vaultLogins map[workload.Role]map[string]string    // vault-credentials
	accounts    map[workload.Role]workload.Credentials // postgresql-credentials
	owner       *pgx.Conn                              // postgresql-login
	facts       map[string]account                     // postgresql-login, by user
	documents   map[string]*dcp.Document               // counterpart-did

	mu      sync.Mutex
	samples []sample
}

// Run runs all checks, side by side where one does not need the other.
func Run(ctx context.Context, o Options) Report {
	p := newPreflight(o)
	defer p.close(ctx)
	kinds := slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return o.Skip != nil && o.Skip(k.name) })
	r := Report{Checks: make([]Check, len(kinds))}
	at, done := map[string]int{}, make([]chan struct{}, len(kinds))
	for i, k := range kinds {
		at[k.name], done[i] = i, make(chan struct{})
	}
	var all sync.WaitGroup
	var told sync.Mutex
	for i, k := range kinds {
		all.Go(func() {
			defer close(done[i])
			for _, name := range append(append([]string{}, k.needs...), k.after...) {
				if n, ok := at[name]; ok {
					<-done[n]
				}
			}
			f := finding{}
			for _, name := range k.needs {
				n, ok := at[name]
				if !ok { // left out
					continue
				}
				if c := r.Checks[n]; c.Result == Failed || c.Result == Skipped {
					f = skipped("needs %s, which %s", name, map[Outcome]string{Failed: "failed", Skipped: "was skipped"}[c.Result])
					break
				}
			}
			if f.result == "" {
				f = p.try(ctx, k)
			}
			r.Checks[i] = Check{Name: k.name, Result: f.result, Required: k.required, Detail: oneLine(f.detail), Remedy: oneLine(f.remedy)}
			if o.Progress != nil {
				told.Lock()
				defer told.Unlock()
				o.Progress(r.Checks[i])
			}
		})
	}
	all.Wait()
	return r
}

func newPreflight(o Options) *preflight {
	o.timeout = cmp.Or(o.timeout, callTimeout)
	return &preflight{Options: o, documents: map[string]*dcp.Document{}}
}

// close ends the owner's connection to the database.
func (p *preflight) close(ctx context.Context) {
	if p.owner == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.timeout)
	defer cancel()
	_ = p.owner.Close(ctx)
	p.owner = nil
}

// try runs a check, again where that may help.
func (p *preflight) try(ctx context.Context, k kind) finding {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout*p.timeout)
	defer cancel()
	for attempt, pause := 1, firstPause; ; attempt, pause = attempt+1, 2*pause {
		f := k.run(p, ctx)
		if !f.again || attempt == attempts {
			return f
		}
		select {
		case <-ctx.Done():
			return f
		case <-time.After(pause):
		}
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// sentences joins what is wrong with several things.
func sentences(s []string) string { return strings.Join(s, "; ") }
