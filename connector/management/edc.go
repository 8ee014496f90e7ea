// SPDX-License-Identifier: Apache-2.0

package management

import "net/http"

func (s *server) edcRoutes(_ *http.ServeMux) {}
