// SPDX-License-Identifier: Apache-2.0

// Package rights finds out which of the rights that somebody needs the API server does not give.
package rights

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/edcoperator/config"
)

// Lacking are those of rights that an account does not have, as "get, list secrets in namespace a"; it asks the API server for each.
func Lacking(ctx context.Context, c client.Client, rights []config.Rights) ([]string, error) {
	var asked []authorizationv1.ResourceAttributes
	for _, r := range rights {
		for _, rule := range r.Rules {
			names := rule.ResourceNames
			if len(names) == 0 {
				names = []string{""}
			}
			for _, group := range rule.APIGroups {
				for _, kind := range rule.Resources {
					resource, sub, _ := strings.Cut(kind, "/")
					for _, verb := range rule.Verbs {
						for _, name := range names {
							asked = append(asked, authorizationv1.ResourceAttributes{Namespace: r.Namespace, Group: group, Resource: resource, Subresource: sub, Verb: verb, Name: name})
						}
					}
				}
			}
		}
	}
	allowed := make([]bool, len(asked))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range asked {
		g.Go(func() error {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &asked[i]}}
			err := c.Create(ctx, review)
			allowed[i] = review.Status.Allowed
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var order []string
	verbs := map[string][]string{}
	for i, a := range asked {
		if allowed[i] {
			continue
		}
		what := a.Resource
		if a.Subresource != "" {
			what += "/" + a.Subresource
		}
		if a.Group != "" {
			what += "." + a.Group
		}
		if a.Name != "" {
			what += " " + a.Name
		}
		if a.Namespace == "" {
			what += " in the whole cluster"
		} else {
			what += " in namespace " + a.Namespace
		}
		if verbs[what] == nil {
			order = append(order, what)
		}
		verbs[what] = append(verbs[what], a.Verb)
	}
	for i, what := range order {
		slices.Sort(verbs[what])
		order[i] = strings.Join(slices.Compact(verbs[what]), ", ") + " " + what
	}
	return order, nil
}

const (
	soon    = 5 * time.Second // when to ask again while some are lacking, or nothing is known
	timeout = 30 * time.Second
)

// Own are the rights of an operator. An operator that lacks some does a part of its work at most, and waits for some without a word, as those to list
// and watch: so it is not ready, and says in its log what it lacks.
type Own struct {
	// Every is how often they are asked for while all are there; a minute unless it is set.
	Every time.Duration

	rights []config.Rights
	client client.Client
	log    logr.Logger

	mu      sync.Mutex
	asking  bool
	next    time.Time
	lacking []string
	err     error // of the last question; nothing is known of the rights as long as there was no answer
	known   bool
}

// NewOwn makes the rights of the account of cfg, which are to be all of rights.
func NewOwn(cfg *rest.Config, rights []config.Rights, log logr.Logger) (*Own, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Timeout, cfg.QPS = timeout, -1 // Lacking bounds how many are asked for at once
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("kubernetes client: %w", err)
	}
	return &Own{Every: time.Minute, rights: rights, client: c, log: log}, nil
}

// Check is a healthz.Checker: an error says what is lacking as far as is known. It does not wait for the API server, which is asked beside it, and one
// that does not answer changes nothing; nor does a cluster in which an account may not ask.
func (o *Own) Check(*http.Request) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.asking && !time.Now().Before(o.next) {
		o.asking = true
		go o.ask()
	}
	switch {
	case len(o.lacking) > 0:
		return fmt.Errorf("the operator may not: %s", strings.Join(o.lacking, "; "))
	case !o.known && o.err != nil:
		return fmt.Errorf("the operator's rights are not known: %w", o.err)
	case !o.known:
		return errors.New("the operator's rights are not known yet")
	}
	return nil
}

func (o *Own) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	lacking, err := Lacking(ctx, o.client, o.rights)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asking, o.err = false, err
	o.next = time.Now().Add(min(soon, o.Every))
	switch {
	case apierrors.IsForbidden(err):
		if !o.known {
			o.log.Error(err, "the cluster does not let the operator ask for its rights; it goes on without knowing them")
		}
	case err != nil:
		return
	case len(lacking) == 0:
		o.next = time.Now().Add(o.Every)
		if len(o.lacking) > 0 {
			o.log.Info("the operator has all its rights again")
		}
	case !slices.Equal(lacking, o.lacking):
		o.log.Error(nil, "the operator lacks rights: have the cluster's administrator give them back", "lacking", strings.Join(lacking, "; "))
	}
	o.known, o.lacking = true, lacking
}
