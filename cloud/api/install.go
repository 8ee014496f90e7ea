// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/cloud/authz"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	cloudkube "github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
)

// CellInstall has the agent of an on-premise cell admitted.
type CellInstall struct {
	AgentKey string `json:"agentKey" pattern:"^U[A-Z2-7]{55}$" doc:"Public key (NATS nkey of a user) of the company's agent; whoever holds the key of another value that was here before is out"`
}

// CellInstallation is what a company applies in its own cluster for an on-premise cell. Nothing in it is secret.
type CellInstallation struct {
	Cell      string `json:"cell"`
	Namespace string `json:"namespace" doc:"In the company's cluster"`
	AgentKey  string `json:"agentKey,omitempty" doc:"Public key of the agent that is admitted; empty when none is"`
	AgentJWT  string `json:"agentJWT,omitempty" doc:"Admits the holder of the key's private half, with which it makes the agent's credentials; empty while the key is not signed"`
	// Objects are to be applied in this order.
	Objects []json.RawMessage `json:"objects" doc:"Kubernetes objects, to be applied in this order. Besides them the agent waits for the Secret cell-agent-nats with key agent.creds, which whoever holds the private key makes"`
}

// signTimeout bounds how long an installation waits for the operator to sign the agent's key.
const signTimeout = 30 * time.Second

func registerInstall(api huma.API, s *Service) {
	const path = "/cells/{name}/install"
	type installInput struct {
		Name string `path:"name" maxLength:"63"`
		Body CellInstall
	}
	huma.Register(api, operation(authz.OpGetCellInstallation, http.MethodGet, path, "Read what a company applies in its own cluster for an on-premise cell"),
		func(ctx context.Context, in *getInput) (*output[CellInstallation], error) {
			i, err := s.CellInstallation(ctx, in.Name)
			return &output[CellInstallation]{i}, err
		})
	huma.Register(api, operation(authz.OpInstallCell, http.MethodPost, path, "Admit the agent of an on-premise cell by its public key, in place of the one before; answers what the company applies in its own cluster"),
		func(ctx context.Context, in *installInput) (*output[CellInstallation], error) {
			i, err := s.InstallCell(ctx, in.Name, in.Body.AgentKey)
			return &output[CellInstallation]{i}, err
		})
	huma.Register(api, operation(authz.OpUninstallCell, http.MethodDelete, path, "Admit no agent of an on-premise cell any more, after what ran in the company's cluster was removed there; refused while participants are placed in it"),
		func(ctx context.Context, in *getInput) (*none, error) {
			return nil, s.UninstallCell(ctx, in.Name)
		})
}

// CellInstallation returns what a company applies for its cell, with the key that is admitted now.
func (s *Service) CellInstallation(ctx context.Context, name string) (CellInstallation, error) {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	c, err := s.onPremise(ctx, name)
	if err != nil {
		return CellInstallation{}, err
	}
	return s.installation(ctx, c)
}

// InstallCell admits an agent by its public key and waits until the operator has signed it.
func (s *Service) InstallCell(ctx context.Context, name, agentKey string) (CellInstallation, error) {
	if !nkeys.IsValidPublicUserKey(agentKey) {
		p := problem(http.StatusUnprocessableEntity, CodeInvalid, "the agent's key is not valid", "make it with nk -gen user, or kaphera cell install, and send its public half")
		p.Errors = []FieldError{{"body.agentKey", fmt.Sprintf("%q is not the public key of a NATS user", agentKey)}}
		return CellInstallation{}, p
	}
	c, err := s.admit(ctx, name, agentKey)
	if err != nil {
		return CellInstallation{}, err
	}
	late := time.After(min(signTimeout, s.MaxWatch))
	tick := time.NewTicker(s.PollInterval)
	defer tick.Stop()
	for !signed(c) {
		why := "the cell has no status yet"
		if ready := meta.FindStatusCondition(c.Status.Conditions, cloudv1.ConditionReady); ready != nil {
			why = ready.Message
			if ready.ObservedGeneration == c.Generation && slices.Contains([]string{cloudv1.ReasonInvalid, cloudv1.ReasonTaken, cloudv1.ReasonMissing}, ready.Reason) {
				return CellInstallation{}, problem(http.StatusConflict, CodeConflict, fmt.Sprintf("the key of the agent of cell %q is not signed: %s", name, why), "correct that first")
			}
		}
		select {
		case <-ctx.Done():
			return CellInstallation{}, ctx.Err()
		case <-late:
			return CellInstallation{}, problem(http.StatusServiceUnavailable, CodeNotReady, fmt.Sprintf("the key of the agent of cell %q is not signed yet: %s", name, why), "try again in a moment, with the same key")
		case <-tick.C:
		}
		if c, err = s.onPremise(ctx, name); err != nil {
			return CellInstallation{}, err
		}
		if c.Spec.AgentKey != agentKey {
			return CellInstallation{}, problem(http.StatusConflict, CodeConflict, fmt.Sprintf("another key of the agent of cell %q was admitted meanwhile", name), "ask who else installs it, and repeat")
		}
	}
	return s.installation(ctx, c)
}

// UninstallCell has no agent of the cell admitted any more. What an agent would still have to take down keeps the key.
func (s *Service) UninstallCell(ctx context.Context, name string) error {
	var all cloudv1.ParticipantList
	if err := s.Client.List(ctx, &all, ctrl.InNamespace(s.Namespace)); err != nil {
		return cells.problem(name, err)
	}
	if _, err := s.onPremise(ctx, name); err != nil {
		return err
	}
	if n := slices.IndexFunc(all.Items, func(p cloudv1.Participant) bool { return slices.Contains(p.Cells(), name) }); n >= 0 {
		return problem(http.StatusConflict, CodeConflict, fmt.Sprintf("participant %q is in cell %q: without its agent nobody would take it down there", all.Items[n].Name, name), "remove the cell's participants first")
	}
	_, err := s.admit(ctx, name, "")
	return err
}

func signed(c *cloudv1.Cell) bool {
	claims, err := jwt.DecodeUserClaims(c.Status.AgentJWT)
	return err == nil && claims.Subject == c.Spec.AgentKey
}

// onPremise reads an on-premise cell that the caller may see.
func (s *Service) onPremise(ctx context.Context, name string) (*cloudv1.Cell, error) {
	o, err := cells.live(ctx, s, name)
	if err != nil {
		return nil, err
	}
	c := o.(*cloudv1.Cell) //nolint:forcetypeassert // as the kind makes them
	if c.Spec.Type != cloudv1.OnPremise {
		return nil, problem(http.StatusConflict, CodeConflict, fmt.Sprintf("cell %q is %s: it runs in the cloud's cluster, where nothing is to be installed", name, c.Spec.Type), "name an on-premise cell")
	}
	return c, nil
}

// admit writes the key of the agent into the cell, whoever manages the rest of it: the key is the company's. It returns the cell as it is then.
func (s *Service) admit(ctx context.Context, name, agentKey string) (*cloudv1.Cell, error) {
	var c *cloudv1.Cell
	err := s.writeCell(ctx, name, func(ctx context.Context) (_ *cloudv1.Cell, err error) {
		if c, err = s.onPremise(ctx, name); err != nil || c.Spec.AgentKey == agentKey {
			return nil, err
		}
		if agentKey != "" && !c.DeletionTimestamp.IsZero() {
			return nil, problem(http.StatusConflict, CodeConflict, fmt.Sprintf("cell %q is being removed", name), "wait until it is gone, then create it again")
		}
		c.Spec.AgentKey = agentKey
		return c, nil
	})
	return c, err
}

// writeCell writes the cell that change reads and changes, again when the operator wrote it in between; none when it returns none.
func (s *Service) writeCell(ctx context.Context, name string, change func(context.Context) (*cloudv1.Cell, error)) error {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	const attempts = 5
	var err error
	for range attempts {
		c, unfit := change(ctx)
		if unfit != nil || c == nil {
			return unfit
		}
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		setChanger(c, authz.From(ctx).Principal)
		if err = s.Client.Update(ctx, c); !apierrors.IsConflict(err) {
			break
		}
	}
	return cells.problem(name, err)
}

func (s *Service) installation(ctx context.Context, c *cloudv1.Cell) (CellInstallation, error) {
	var platforms cloudv1.PlatformList
	if err := s.Client.List(ctx, &platforms, ctrl.InNamespace(s.Namespace)); err != nil {
		return CellInstallation{}, cells.problem(c.Name, err)
	}
	if len(platforms.Items) == 0 || platforms.Items[0].Status.Images.EDCOperator == "" {
		return CellInstallation{}, problem(http.StatusServiceUnavailable, CodeNotReady, "the platform has not said yet which images it runs", "try again in a moment")
	}
	p, m := &platforms.Items[0], manifest.Cell(c.Name)
	out := CellInstallation{Cell: c.Name, Namespace: m.Namespace(), AgentKey: c.Spec.AgentKey}
	if signed(c) {
		out.AgentJWT = c.Status.AgentJWT
	}
	url, ca := parts.AgentNATS(p)
	own := c.Spec.Images
	agent := manifest.Agent{
		Image: cmp.Or(own.Agent, p.Status.Images.Agent), PullSecrets: c.Spec.ImagePullSecrets, Proxy: c.Spec.Proxy,
		NATSURL: url, CA: ca, Credentials: []byte(out.AgentKey), Replicas: c.Spec.Replicas,
	}
	objects, err := m.Bundle(agent, cmp.Or(own.EDCOperator, p.Status.Images.EDCOperator), cmp.Or(own.Connector, p.Status.Images.Connector))
	if err != nil {
		return CellInstallation{}, internalError(err)
	}
	for _, o := range objects {
		u, err := cloudkube.Unstructured(s.Client, o)
		if err != nil {
			return CellInstallation{}, internalError(err)
		}
		raw, err := json.Marshal(u)
		if err != nil {
			return CellInstallation{}, internalError(err)
		}
		out.Objects = append(out.Objects, raw)
	}
	return out, nil
}
