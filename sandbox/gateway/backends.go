// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// unavailableError is why a backend cannot be tried at all.
type unavailableError struct{ reason string }

func (e unavailableError) Error() string { return e.reason }

// endpoints finds the addresses of the ready pods behind a backend.
// It returns unavailableError with a reason for people when there are none.
func endpoints(b Backend, service *corev1.Service, parts []*discoveryv1.EndpointSlice) ([]string, error) {
	if service == nil {
		return nil, unavailableError{fmt.Sprintf("the Service %s/%s does not exist", b.Namespace, b.Service)}
	}
	i := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
		if b.PortName != "" {
			return p.Name == b.PortName
		}
		return p.Port == b.PortNumber
	})
	if i < 0 {
		return nil, unavailableError{fmt.Sprintf("the Service %s/%s has no port %s", b.Namespace, b.Service, b.portText())}
	}
	var found []string
	for _, slice := range parts {
		for _, port := range slice.Ports {
			if port.Port == nil || port.Name == nil && service.Spec.Ports[i].Name != "" ||
				port.Name != nil && *port.Name != service.Spec.Ports[i].Name {
				continue
			}
			for _, e := range slice.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready {
					continue
				}
				for _, address := range e.Addresses {
					found = append(found, net.JoinHostPort(address, strconv.Itoa(int(*port.Port))))
				}
			}
		}
	}
	if len(found) == 0 {
		return nil, unavailableError{fmt.Sprintf("the Service %s/%s has no pod that is ready", b.Namespace, b.Service)}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

func (b Backend) portText() string {
	if b.PortName != "" {
		return strconv.Quote(b.PortName)
	}
	return strconv.Itoa(int(b.PortNumber))
}

const (
	dialTimeout   = 3 * time.Second
	answerTimeout = 120 * time.Second // to the first byte of the answer
	maxTries      = 3
)

func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		DialContext: dialer.DialContext, ResponseHeaderTimeout: answerTimeout,
		MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
}

type targetsKey struct{}

// balanced takes turns among a request's targets and goes on to the next one
// when a connection cannot be made: nothing was sent then.
type balanced struct {
	next http.RoundTripper
	turn atomic.Uint64
}

func withTargets(ctx context.Context, targets []string) context.Context {
	return context.WithValue(ctx, targetsKey{}, targets)
}

func (b *balanced) RoundTrip(req *http.Request) (*http.Response, error) {
	targets, _ := req.Context().Value(targetsKey{}).([]string)
	if len(targets) == 0 {
		return nil, errors.New("no target")
	}
	start := int(b.turn.Add(1) % uint64(len(targets)))
	var last error
	for try := range min(len(targets), maxTries) {
		out := req.Clone(req.Context())
		out.URL.Host = targets[(start+try)%len(targets)]
		if req.Body != nil {
			out.Body = io.NopCloser(req.Body) // a failed dial closes it
		}
		resp, err := b.next.RoundTrip(out)
		if err == nil {
			return resp, nil
		}
		last = err
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" || req.Context().Err() != nil {
			break
		}
	}
	return nil, last
}
