// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kaphera/kaphera/sandbox/pki"
)

var quiet = slog.New(slog.DiscardHandler)

// fixed answers every request of the host "known.test" with one outcome.
type fixed struct {
	to  []string
	err error
}

func (f fixed) find(host, _ string) (Backend, bool) {
	return Backend{Namespace: "ns", Service: "svc", PortNumber: 80}, host == "known.test"
}
func (f fixed) targets(Backend) ([]string, error) { return f.to, f.err }

// closedPort is a port that is taken until the test ends, and where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { must(t, syscall.Close(fd)) })
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	at, err := syscall.Getsockname(fd)
	must(t, err)
	return fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
}

func ask(t *testing.T, h http.Handler, method, url, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func TestFailuresSayWhatAndWhere(t *testing.T) {
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(broken.Close)
	for name, c := range map[string]struct {
		r      fixed
		url    string
		status int
		says   []string
	}{
		"no route":   {fixed{}, "https://other.test/x", 404, []string{"no Ingress", `"other.test"`, `"/x"`}},
		"no pod":     {fixed{err: unavailableError{"nobody is ready"}}, "https://known.test/", 503, []string{"nobody is ready"}},
		"not there":  {fixed{to: []string{closedPort(t)}}, "https://known.test/y", 502, []string{"ns/svc:80", "refused", `"/y"`}},
		"broken off": {fixed{to: []string{broken.Listener.Addr().String()}}, "https://known.test/", 502, []string{"ns/svc:80"}},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := ask(t, newProxy(c.r, newTransport(), quiet), http.MethodGet, c.url, "")
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			for _, say := range c.says {
				if !strings.Contains(body, say) {
					t.Errorf("%q is not in %q", say, body)
				}
			}
		})
	}
}

func TestADeadPodIsPassedOver(t *testing.T) {
	live := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Host, r.Header.Get("X-Forwarded-Proto"), body)
	}))
	t.Cleanup(live.Close)
	proxy := newProxy(fixed{to: []string{closedPort(t), live.Listener.Addr().String()}}, newTransport(), quiet)
	for range 4 { // whichever of the two has its turn
		status, body := ask(t, proxy, http.MethodPost, "https://known.test/", "the body")
		if status != http.StatusOK || body != "known.test https the body" {
			t.Fatalf("status %d, body %q", status, body)
		}
	}
}

func TestAProtocolUpgradePasses(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = rw.Flush()
		line, _ := rw.ReadString('\n')
		_, _ = rw.WriteString(line)
		_ = rw.Flush()
	}))
	t.Cleanup(echo.Close)
	front := httptest.NewServer(newProxy(fixed{to: []string{echo.Listener.Addr().String()}}, newTransport(), quiet))
	t.Cleanup(front.Close)
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", front.Listener.Addr().String())
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: known.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	must(t, err)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	must(t, err)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status %d", resp.StatusCode)
	}
	_, err = io.WriteString(conn, "hello\n")
	must(t, err)
	if line, err := r.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

func TestPlainHTTPAnswersReadinessAndSendsTheRestToHTTPS(t *testing.T) {
	ready := false
	h := newPlain(func() bool { return ready })
	if status, _ := ask(t, h, http.MethodGet, "http://10.205.0.2"+ReadyPath, ""); status != http.StatusServiceUnavailable {
		t.Errorf("before it is ready: %d", status)
	}
	ready = true
	if status, _ := ask(t, h, http.MethodGet, "http://10.205.0.2"+ReadyPath, ""); status != http.StatusOK {
		t.Errorf("when it is ready: %d", status)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://a.test:80/x?y=z", nil))
	if got := w.Header().Get("Location"); w.Code != http.StatusPermanentRedirect || got != "https://a.test/x?y=z" {
		t.Errorf("%d to %q", w.Code, got)
	}
}

func TestEndpoints(t *testing.T) {
	yes, no, web, port := true, false, "web", int32(8080)
	service := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: web, Port: 80}}}}
	slice := func(ready *bool, addresses ...string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			Ports:     []discoveryv1.EndpointPort{{Name: &web, Port: &port}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: addresses, Conditions: discoveryv1.EndpointConditions{Ready: ready}}},
		}
	}
	byNumber, byName := Backend{"ns", "svc", "", 80}, Backend{"ns", "svc", "web", 0}
	for name, c := range map[string]struct {
		b       Backend
		service *corev1.Service
		slices  []*discoveryv1.EndpointSlice
		want    string // addresses or reason
	}{
		"by number":             {byNumber, service, []*discoveryv1.EndpointSlice{slice(&yes, "10.0.0.2"), slice(nil, "10.0.0.1")}, "[10.0.0.1:8080 10.0.0.2:8080]"},
		"by name":               {byName, service, []*discoveryv1.EndpointSlice{slice(&yes, "10.0.0.1")}, "[10.0.0.1:8080]"},
		"in two slices at once": {byName, service, []*discoveryv1.EndpointSlice{slice(&yes, "10.0.0.1"), slice(&yes, "10.0.0.1")}, "[10.0.0.1:8080]"},
		"not ready":             {byName, service, []*discoveryv1.EndpointSlice{slice(&no, "10.0.0.1")}, "the Service ns/svc has no pod that is ready"},
		"no such port":          {Backend{"ns", "svc", "", 81}, service, nil, "the Service ns/svc has no port 81"},
		"no such port name":     {Backend{"ns", "svc", "grpc", 0}, service, nil, `the Service ns/svc has no port "grpc"`},
		"no such service":       {byName, nil, nil, "the Service ns/svc does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := endpoints(c.b, c.service, c.slices)
			got := fmt.Sprint(found)
			var unavailable unavailableError
			if errors.As(err, &unavailable) {
				got = unavailable.reason
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestCertificatesAreMadePerKnownHostOnly(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	authority, _, err := pki.NewAuthority("test", now)
	must(t, err)
	c := &certificates{authority: authority, domain: "demo.test", now: func() time.Time { return now },
		knows: func(host string) bool { return host == "known.demo.test" }, made: map[string]*tls.Certificate{}}
	serial := func(name string) string {
		cert, err := c.get(&tls.ClientHelloInfo{ServerName: name})
		must(t, err)
		return fmt.Sprint(cert.Leaf.SerialNumber, cert.Leaf.DNSNames)
	}
	known := serial("known.demo.test")
	if serial("KNOWN.demo.test") != known {
		t.Error("the second handshake got another certificate")
	}
	for _, stranger := range []string{"", "demo.test", "one.demo.test", "two.example"} {
		if got := serial(stranger); !strings.HasSuffix(got, "[demo.test *.demo.test]") {
			t.Errorf("%q was answered with %s", stranger, got)
		}
	}
	if len(c.made) != 2 {
		t.Errorf("%d certificates are kept, want 2", len(c.made))
	}
	now = now.Add(360 * 24 * time.Hour)
	if serial("known.demo.test") == known {
		t.Error("a certificate about to expire is still served")
	}
}
