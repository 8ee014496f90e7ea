// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/cloud/authz"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// CellRotation asks for other credentials of a cell.
type CellRotation struct {
	RevokeNow bool `json:"revokeNow,omitempty" doc:"Revoke the former credentials at once, as when somebody else may have them; whoever still uses them is refused until the cell has taken the new ones"`
}

// CellRotationRequest is one that was taken.
type CellRotationRequest struct {
	Requested string `json:"requested" doc:"When it was asked for (RFC 3339): status.rotatedFor of the cell has this value once the former credentials open nothing any more; until then its condition CredentialsRotated says what they still open"`
}

func registerRotation(api huma.API, s *Service) {
	type input struct {
		Name string `path:"name" maxLength:"63"`
		Body CellRotation
	}
	op := operation(authz.OpRotateCredentials, http.MethodPost, "/cells/{name}/rotate-credentials",
		"Give a cell other credentials at the message server and PostgreSQL, without a gap, and revoke the former ones once they are out of use")
	op.DefaultStatus = http.StatusAccepted
	huma.Register(api, op, func(ctx context.Context, in *input) (*output[CellRotationRequest], error) {
		r, err := s.RotateCredentials(ctx, in.Name, in.Body.RevokeNow)
		return &output[CellRotationRequest]{r}, err
	})
}

// RotateCredentials asks the operator for other credentials of a cell, whoever manages the rest of it.
func (s *Service) RotateCredentials(ctx context.Context, name string, revokeNow bool) (r CellRotationRequest, err error) {
	err = s.writeCell(ctx, name, func(ctx context.Context) (*cloudv1.Cell, error) {
		o, err := cells.live(ctx, s, name)
		if err != nil {
			return nil, err
		}
		c := o.(*cloudv1.Cell) //nolint:forcetypeassert // as the kind makes them
		switch {
		case c.Spec.Type == cloudv1.OnPremise:
			return nil, problem(http.StatusConflict, CodeConflict, fmt.Sprintf("the credentials of cell %q are those of the company in whose cluster it is", name),
				"the agent's key: kaphera cell install "+name+" --rotate-key; those of database and Vault: write others into the Secrets that the cell names")
		case !c.DeletionTimestamp.IsZero():
			return nil, problem(http.StatusConflict, CodeConflict, fmt.Sprintf("cell %q is being removed, and its credentials with it", name), "wait until it is gone")
		}
		r.Requested = time.Now().UTC().Format(time.RFC3339Nano)
		metav1.SetMetaDataAnnotation(&c.ObjectMeta, cloudv1.RotateAnnotation, r.Requested)
		if revokeNow {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, cloudv1.RevokeNowAnnotation, r.Requested)
		}
		return c, nil
	})
	return r, err
}
