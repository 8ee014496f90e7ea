// SPDX-License-Identifier: FSL-1.1-ALv2

package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kaphera/kaphera/cloud/api"
	"github.com/kaphera/kaphera/cloud/internal/cloudtest"
	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/test/freeport"
)

func service(t *testing.T, scheme *runtime.Scheme) *api.Service {
	t.Helper()
	return api.New(api.Service{Client: kubefake.NewClientBuilder().WithScheme(scheme).Build(), Namespace: "kaphera-system", Log: slog.New(slog.DiscardHandler)})
}

func known(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := cloudv1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func get(h http.Handler, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w
}

func TestOnePortServesAPIAndConsole(t *testing.T) {
	issuer := cloudtest.NewIssuer(t)
	identity := api.NewOIDC(issuer.URL, cloudtest.Audience, issuer.TLS.Client(), time.Now)
	pages := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	h := Public(service(t, known(t)), identity, pages, "https://api.example")
	for target, want := range map[string]int{
		"https://api.example/":                  http.StatusFound, // to the documentation
		"https://api.example/api/v1/info":       http.StatusOK,
		"https://console.example/api/v1/status": http.StatusUnauthorized,
		"https://console.example/":              http.StatusTeapot,
		"https://console.example/participants":  http.StatusTeapot,
	} {
		if got := get(h, target).Code; got != want {
			t.Errorf("GET %s: %d, want %d", target, got, want)
		}
	}
}

func TestReadinessSaysWhatIsMissing(t *testing.T) {
	issuer := cloudtest.NewIssuer(t)
	issuer.SetDown(true)
	identity := api.NewOIDC(issuer.URL, cloudtest.Audience, issuer.TLS.Client(), time.Now)
	h := health(service(t, known(t)), identity, prometheus.NewRegistry())
	if w := get(h, "/livez"); w.Code != http.StatusOK {
		t.Errorf("not alive: %d", w.Code)
	}
	_ = identity.Discover(t.Context()) // it is down
	reason := func(h http.Handler) string {
		w := get(h, "/readyz")
		var body struct {
			Reason string `json:"reason"`
		}
		if w.Code != http.StatusServiceUnavailable || json.Unmarshal(w.Body.Bytes(), &body) != nil {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		return body.Reason
	}
	if got := reason(h); !strings.Contains(got, issuer.URL) {
		t.Errorf("reason %q, want the identity provider", got)
	}
	issuer.SetDown(false)
	if err := identity.Discover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w := get(h, "/readyz"); w.Code != http.StatusOK {
		t.Errorf("not ready although all is there: %d %s", w.Code, w.Body)
	}
	// A Kubernetes API that does not know our kinds.
	if got := reason(health(service(t, runtime.NewScheme()), identity, prometheus.NewRegistry())); got == "" {
		t.Error("ready without its objects")
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	err = listen(t.Context(), l.Addr().String(), http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "another program") {
		t.Errorf("got %v", err)
	}
}

// TestStoppingEndsStreams starts a stream and stops: the server must not wait for it for ever.
func TestStoppingEndsStreams(t *testing.T) {
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	ctx, stop := context.WithCancel(t.Context())
	streaming, once := make(chan struct{}), sync.Once{}
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(streaming) })
		<-r.Context().Done()
	})
	done := make(chan error, 1)
	go func() { done <- listen(ctx, address, h, slog.New(slog.DiscardHandler)) }()
	go func() {
		for ctx.Err() == nil { // until it listens
			if r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil); err == nil {
				if resp, err := http.DefaultClient.Do(r); err == nil || !errors.Is(err, context.Canceled) && strings.Contains(err.Error(), "EOF") {
					if resp != nil {
						_ = resp.Body.Close()
					}
					return
				}
			}
		}
	}()
	select {
	case <-streaming:
	case err := <-done:
		t.Fatalf("it does not listen: %v", err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("stopping: %v", err)
	}
}
