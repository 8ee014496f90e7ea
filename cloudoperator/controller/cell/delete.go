// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
)

// takeDown publishes an empty snapshot and waits for the agent to carry it out. A cell that has no agent, or one that is not heard from
// for takeDownFor, is not waited for: its namespace goes as a whole. Nobody else takes down what runs in a company's cluster: an agent there that has
// ever reported is waited for, until it was uninstalled or somebody says that it will not come back.
func (r *run) takeDown(ctx context.Context) error {
	if r.cell.Status.Revision == 0 {
		return nil
	}
	creds, err := cellrpc.SecretCredentials(r.Access.Reader, r.Access.Namespace)(ctx, r.cell.Name)
	needed := r.onPremise() && r.cell.Status.LastHeard != nil
	overdue := r.cell.Abandoned() || !needed && r.Now().Sub(r.cell.DeletionTimestamp.Time) > takeDownFor
	if err != nil {
		if overdue {
			return nil
		}
		return err
	}
	nc, err := r.Links.Open(ctx, r.cell.Name, creds)
	if err == nil {
		var revision int64
		if revision, _, err = celllink.Publish(ctx, nc, r.cell.Name, r.cell.Status.Revision, nil); err == nil {
			r.cell.Status.Revision = revision
		}
	}
	report, _ := r.Links.Report(r.cell.Name)
	switch {
	case err == nil && report != nil && report.AppliedRevision == r.cell.Status.Revision && len(report.Objects) == 0:
		return nil
	case overdue:
		return nil
	case err != nil:
		return err
	}
	message := "the agent is taking down what the cell runs"
	if c := r.connected(); needed && !c.OK {
		message = fmt.Sprintf("%s: what it runs in the company's cluster is there until it reports again. If it never will, delete namespace %s there and set the annotation %s to true",
			c.Message, r.ns, cloud.AbandonAnnotation)
	}
	return &stopped{cloud.ReasonDeleting, message}
}

// removeAll removes databases, Vault roles and secrets of every runtime that the cell ever had.
func (r *run) removeAll(ctx context.Context) error {
	former, err := r.formerIssuers(ctx)
	if err != nil {
		return err
	}
	runtimes := append(former, runtimeSpec{name: snapshot.ConnectorName, resources: snapshot.ConnectorResources(r.cell.Name)})
	for _, rt := range runtimes {
		if err := r.remove(ctx, rt); err != nil && !errors.Is(err, parts.ErrNotSetUp) {
			return err
		}
	}
	return nil
}

// removeAccount removes the cell's account from the message server, with its streams, and the credentials.
func (r *run) removeAccount(ctx context.Context) error {
	r.Links.Close(r.cell.Name)
	seedSecret := r.Access.Secret(parts.AccountSecret(r.cell.Name))
	err := r.Access.Reader.Get(ctx, client.ObjectKeyFromObject(seedSecret), seedSecret)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read secret %s: %w", seedSecret.Name, err)
	}
	if err == nil {
		op, err := r.Access.Operator(ctx)
		if err != nil {
			return err
		}
		nc, err := r.Access.OpenNATSSystem(ctx)
		if err != nil {
			return err
		}
		defer nc.Close()
		if err := op.Delete(nc, seedSecret.Data[seedKey]); err != nil {
			return fmt.Errorf("remove the account of cell %s: %w", r.cell.Name, err)
		}
	}
	var creds corev1.Secret
	err = r.Access.Reader.Get(ctx, types.NamespacedName{Namespace: r.Access.Namespace, Name: parts.SecretCellCreds}, &creds)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read secret %s: %w", parts.SecretCellCreds, err)
	}
	if key := cellrpc.CredentialsKey(r.cell.Name); creds.Data[key] != nil {
		delete(creds.Data, key)
		if err := r.Access.Client.Update(ctx, &creds); err != nil {
			return fmt.Errorf("write secret %s: %w", parts.SecretCellCreds, err)
		}
	}
	return kube.Delete(ctx, r.Access.Client, seedSecret)
}

// ReadyOf is the condition Ready of a reported object; nil when it has none.
func ReadyOf(o *celllink.Object) *metav1.Condition {
	return ConditionOf(o, "Ready")
}

// reasonForm is what the API takes for the reason of a condition.
var reasonForm = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`)

// ConditionOf is a condition of a reported object; nil when it has none, or one that the API would not take.
func ConditionOf(o *celllink.Object, condition string) *metav1.Condition {
	if o == nil || len(o.Status) == 0 {
		return nil
	}
	var s struct {
		Conditions []metav1.Condition `json:"conditions"`
	}
	if json.Unmarshal(o.Status, &s) != nil {
		return nil
	}
	c := apimeta.FindStatusCondition(s.Conditions, condition)
	if c == nil || len(c.Reason) > 1024 || !reasonForm.MatchString(c.Reason) {
		return nil
	}
	return c
}

// memo remembers, in the life of the process, what was done for a cell.
type memo struct {
	mu      sync.Mutex
	digest  map[string]string
	at      map[string]time.Time
	account map[string]string               // the keys that were revoked when it was pushed
	since   map[string]map[string]time.Time // since when something of a cell has been so, as lasts was told
}

// lasts notes whether something is so, and returns for how long it has been.
func (m *memo) lasts(cell, what string, is bool, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !is {
		delete(m.since[cell], what)
		return 0
	}
	if m.since == nil {
		m.since = map[string]map[string]time.Time{}
	}
	if m.since[cell] == nil {
		m.since[cell] = map[string]time.Time{}
	}
	if _, seen := m.since[cell][what]; !seen {
		m.since[cell][what] = now
	}
	return now.Sub(m.since[cell][what])
}

func (m *memo) due(cell, digest string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.digest[cell] != digest || now.Sub(m.at[cell]) > infraEvery
}

func (m *memo) done(cell, digest string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.digest == nil {
		m.digest, m.at = map[string]string{}, map[string]time.Time{}
	}
	m.digest[cell], m.at[cell] = digest, now
}

func (m *memo) pushed(cell, revoked string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	with, ok := m.account[cell]
	return ok && with == revoked
}

func (m *memo) setPushed(cell, revoked string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.account == nil {
		m.account = map[string]string{}
	}
	m.account[cell] = revoked
}

func (m *memo) forgetPushed(cell string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.account, cell)
}

func (m *memo) forget(cell string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.digest, cell)
	delete(m.at, cell)
	delete(m.account, cell)
	delete(m.since, cell)
}
