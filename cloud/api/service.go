// SPDX-License-Identifier: FSL-1.1-ALv2

// Package api is the Kaphera Cloud API: custom resources as JSON objects, the status table, and the participants' view of
// their connectors, behind OpenID Connect and the table of cloud/authz. Desired state goes to the Kubernetes API only, a
// connector's data to its cell only; nothing is kept here. The console calls Service in process, everybody else the HTTP
// routes.
package api

import (
	"context"
	"log/slog"
	"time"

	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
)

// Service is what the routes and the console's pages do. Each method reads the access that authz.Authorize put into the
// context, and reaches nothing without it. Errors are *Problem.
type Service struct {
	// Client writes, and reads single objects as they are now; Cached reads lists.
	Client ctrl.Client
	Cached ctrl.Reader
	// Namespace of the Platform and its objects.
	Namespace string
	Cells     cellrpc.Caller
	Info      Info
	// PollInterval is how often a watched negotiation is asked for, and MaxWatch how long one watch may last.
	PollInterval, MaxWatch time.Duration
	Now                    func() time.Time
	Log                    *slog.Logger

	signed chan struct{} // a revision was signed off
}

// New completes a service with defaults.
func New(s Service) *Service {
	if s.Cached == nil {
		s.Cached = s.Client
	}
	if s.PollInterval == 0 {
		s.PollInterval = 300 * time.Millisecond
	}
	if s.MaxWatch == 0 {
		s.MaxWatch = 10 * time.Minute
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Log == nil {
		s.Log = slog.Default()
	}
	s.signed = make(chan struct{}, 1)
	return &s
}

// kubernetesTimeout bounds one call's dealings with the Kubernetes API.
const kubernetesTimeout = 15 * time.Second

// Ready says whether the service can read its objects.
func (s *Service) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, kubernetesTimeout)
	defer cancel()
	return s.Cached.List(ctx, &cloudv1.CellList{}, ctrl.InNamespace(s.Namespace), ctrl.Limit(1))
}
