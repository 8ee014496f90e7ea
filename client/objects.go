// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"io"
	"net/http"
)

// Objects are the calls on one kind of desired state. Bodies and answers are {"name","revision","spec","status",…}.
type Objects struct {
	Get    func(ctx context.Context, name string, edit ...RequestEditorFn) (*http.Response, error)
	Put    func(ctx context.Context, name string, w Write, body io.Reader) (*http.Response, error)
	Delete func(ctx context.Context, name string, w Write) (*http.Response, error)
}

// Write says how an object is written: only judged, or although somebody else manages it.
type Write struct{ DryRun, Force bool }

// Objects of a kind, as the API's path calls it: cells, dataspace-profiles, use-cases, organizations or participants.
func (a *API) Objects(kind string) Objects {
	const contentType = "application/json"
	c := a.ClientInterface
	switch kind {
	case "cells":
		return Objects{c.GetCell, func(ctx context.Context, name string, w Write, body io.Reader) (*http.Response, error) {
			return c.PutCellWithBody(ctx, name, &PutCellParams{DryRun: w.DryRun, Force: w.Force}, contentType, body)
		}, func(ctx context.Context, name string, w Write) (*http.Response, error) {
			return c.DeleteCell(ctx, name, &DeleteCellParams{DryRun: w.DryRun, Force: w.Force})
		}}
	case "dataspace-profiles":
		return Objects{c.GetDataspaceProfile, func(ctx context.Context, name string, w Write, body io.Reader) (*http.Response, error) {
			return c.PutDataspaceProfileWithBody(ctx, name, &PutDataspaceProfileParams{DryRun: w.DryRun, Force: w.Force}, contentType, body)
		}, func(ctx context.Context, name string, w Write) (*http.Response, error) {
			return c.DeleteDataspaceProfile(ctx, name, &DeleteDataspaceProfileParams{DryRun: w.DryRun, Force: w.Force})
		}}
	case "use-cases":
		return Objects{c.GetUseCase, func(ctx context.Context, name string, w Write, body io.Reader) (*http.Response, error) {
			return c.PutUseCaseWithBody(ctx, name, &PutUseCaseParams{DryRun: w.DryRun, Force: w.Force}, contentType, body)
		}, func(ctx context.Context, name string, w Write) (*http.Response, error) {
			return c.DeleteUseCase(ctx, name, &DeleteUseCaseParams{DryRun: w.DryRun, Force: w.Force})
		}}
	case "organizations":
		return Objects{c.GetOrganization, func(ctx context.Context, name string, w Write, body io.Reader) (*http.Response, error) {
			return c.PutOrganizationWithBody(ctx, name, &PutOrganizationParams{DryRun: w.DryRun, Force: w.Force}, contentType, body)
		}, func(ctx context.Context, name string, w Write) (*http.Response, error) {
			return c.DeleteOrganization(ctx, name, &DeleteOrganizationParams{DryRun: w.DryRun, Force: w.Force})
		}}
	default:
		return Objects{c.GetParticipant, func(ctx context.Context, name string, w Write, body io.Reader) (*http.Response, error) {
			return c.PutParticipantWithBody(ctx, name, &PutParticipantParams{DryRun: w.DryRun, Force: w.Force}, contentType, body)
		}, func(ctx context.Context, name string, w Write) (*http.Response, error) {
			return c.DeleteParticipant(ctx, name, &DeleteParticipantParams{DryRun: w.DryRun, Force: w.Force})
		}}
	}
}
