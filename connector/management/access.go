// SPDX-License-Identifier: Apache-2.0

package management

import (
	"net/http"

	"github.com/kaphera/kaphera/connector/dps"
)

// judgeAccess answers a data plane that asks whether it may serve an access.
func (s *server) judgeAccess(r *http.Request) (any, error) {
	req, err := decode[dps.AccessRequest](r)
	if err != nil {
		return nil, err
	}
	return s.Engine.JudgeAccess(r.Context(), r.PathValue("ctx"), r.PathValue("id"), req)
}
