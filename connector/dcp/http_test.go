// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What failed here stays here.
func TestInnerErrorsAreNotTold(t *testing.T) {
	w := httptest.NewRecorder()
	Handler(slog.New(slog.DiscardHandler), nil, func(*http.Request) (any, error) { return nil, errors.New("password of the database") }).
		ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "password") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
