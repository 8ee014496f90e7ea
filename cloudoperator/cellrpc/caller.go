// SPDX-License-Identifier: FSL-1.1-ALv2

package cellrpc

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kaphera/kaphera/connector/audit"
)

// Credentials returns the NATS credentials file with which the cloud enters a cell's account.
type Credentials func(ctx context.Context, cell string) ([]byte, error)

// CredentialsSecret holds the cloud's credentials of every cell, one key "<cell>.creds" each; the Cloud operator keeps it.
const CredentialsSecret = "cell-credentials" // #nosec G101 -- a name

// CredentialsKey is the key of a cell in CredentialsSecret.
func CredentialsKey(cell string) string { return cell + ".creds" }

// SecretCredentials reads them from CredentialsSecret in namespace.
func SecretCredentials(c client.Reader, namespace string) Credentials {
	return func(ctx context.Context, cell string) ([]byte, error) {
		var s corev1.Secret
		err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: CredentialsSecret}, &s)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("read the credentials of cell %s: %w", cell, err)
		}
		creds, ok := s.Data[CredentialsKey(cell)]
		if !ok {
			return nil, fmt.Errorf("secret %s/%s has no credentials of cell %q: does the cell exist and is it set up?", namespace, CredentialsSecret, cell)
		}
		return creds, nil
	}
}

// NATSCaller calls cells over NATS, one connection per cell, opened at the first call and kept.
type NATSCaller struct {
	url   string
	tls   *tls.Config
	creds Credentials
	calls *prometheus.CounterVec

	mu    sync.Mutex
	conns map[string]*nats.Conn
	once  map[string]bool // cells whose agent executes a call once
	heard map[string]time.Time
}

// NewCaller makes a caller for the server at url (tls://host:4222). A nil tls trusts the system's authorities. metrics may be nil.
func NewCaller(url string, tlsConfig *tls.Config, creds Credentials, metrics prometheus.Registerer) *NATSCaller {
	calls := newCounter(metrics, "kaphera_cell_calls_total", "Calls to cells, by what became of them (answered, expired, not-connected, failed).", "cell", "call", "outcome")
	return &NATSCaller{url: url, tls: tlsConfig, creds: creds, calls: calls, conns: map[string]*nats.Conn{}, once: map[string]bool{}, heard: map[string]time.Time{}}
}

var _ Caller = (*NATSCaller)(nil)

// Call implements Caller. It waits at most Timeout, and repeats what is not answered, since a connection that breaks loses what is on its way; only
// to an agent that has said that it executes it once.
func (n *NATSCaller) Call(ctx context.Context, cell string, r Request) (Response, error) {
	resp, err := n.call(ctx, cell, r)
	n.mu.Lock()
	known := n.conns[cell] != nil
	n.mu.Unlock()
	if !known {
		cell = "" // a name that is no cell's makes no series
	}
	n.calls.WithLabelValues(cell, r.kind(), outcome(err)).Inc()
	return resp, err
}

func (n *NATSCaller) call(ctx context.Context, cell string, r Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	nc, err := n.conn(ctx, cell)
	if err != nil {
		return Response{}, err
	}
	r.ID = nuid.Next()
	r.Expires, _ = ctx.Deadline()
	msg, err := send(ctx, nc, r, func() (once, lately bool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.once[cell], time.Since(n.heard[cell]) < handover
	})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return Response{}, fmt.Errorf("no agent of cell %s is connected: %w", cell, ErrNotConnected)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionReconnecting), errors.Is(err, nats.ErrReconnectBufExceeded):
		return Response{}, fmt.Errorf("reach cell %s: %w: %w", cell, ErrNotConnected, err)
	case errors.Is(err, context.DeadlineExceeded):
		return Response{}, fmt.Errorf("cell %s did not answer %s %s in time: %w: %w", cell, r.Method, r.Path, ErrNotConnected, err)
	case err != nil:
		return Response{}, fmt.Errorf("call cell %s: %w", cell, err)
	}
	var resp Response
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return Response{}, fmt.Errorf("the agent of cell %s answered with something else than a response: %w", cell, err)
	}
	n.mu.Lock()
	n.once[cell], n.heard[cell] = resp.Once, time.Now()
	n.mu.Unlock()
	return resp, nil
}

// handover is how long a call waits, after a cell has answered, for another agent to take the place of the one that answered.
const handover = 15 * time.Second

// send sends a call until it is answered; agent says whether it executes a call once, and whether it answered lately.
func send(ctx context.Context, nc *nats.Conn, r Request, agent func() (once, lately bool)) (*nats.Msg, error) {
	for {
		data, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		if int64(len(data)) > nc.MaxPayload() && nc.MaxPayload() > 0 {
			return nil, fmt.Errorf("the body of %d bytes is larger than what the message server takes (%d)", len(data), nc.MaxPayload())
		}
		try, cancel := ctx, context.CancelFunc(func() {})
		once, lately := agent()
		if once {
			try, cancel = context.WithTimeout(ctx, repeatAfter)
		}
		msg, err := nc.RequestWithContext(try, Subject, data)
		cancel()
		switch {
		case (r.Repeated || lately) && errors.Is(err, nats.ErrNoResponders): // it may come back, and may have executed what was sent before
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Second):
			}
			continue
		case !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
			return msg, err
		}
		r.Repeated = true
	}
}

// Heads implements Caller.
func (n *NATSCaller) Heads(ctx context.Context, cell, participant string) (heads []audit.Head, err error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	nc, err := n.conn(ctx, cell)
	if err != nil {
		return nil, err
	}
	moved := map[string]bool{}
	err = ReadHeads(ctx, nc, participant, func(k Kept) {
		if moved[k.Chain] = k.Moved; !k.Moved {
			heads = append(heads, k.Head)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit heads of %s in cell %s: %w", participant, cell, err)
	}
	return slices.DeleteFunc(heads, func(h audit.Head) bool { return moved[h.Chain] }), nil // they went with it
}

// Kept is a head that is kept of a chain.
type Kept struct {
	audit.Head
	// Moved says that the chain goes on in another cell, with the heads that were kept here.
	Moved bool      `json:"moved,omitempty"`
	Came  time.Time `json:"-"`
	// Sequence in the stream.
	Sequence uint64 `json:"-"`
}

// ReadHeads reads the heads that are kept of a participant in the account of a cell ("*": of all), the oldest first.
func ReadHeads(ctx context.Context, nc *nats.Conn, participant string, each func(Kept)) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	consumer, err := js.OrderedConsumer(ctx, StreamHeads, jetstream.OrderedConsumerConfig{FilterSubjects: []string{SubjectHeads + participant}})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // nothing was ever reported
	}
	if err != nil {
		return err
	}
	for more := true; more; {
		batch, err := consumer.FetchNoWait(500)
		if err != nil {
			return err
		}
		more = false
		for msg := range batch.Messages() {
			var k Kept
			if err := json.Unmarshal(msg.Data(), &k); err != nil {
				return err
			}
			m, err := msg.Metadata()
			if err != nil {
				return err
			}
			k.Came, k.Sequence = m.Timestamp, m.Sequence.Stream
			each(k)
			more = true
		}
		if err := batch.Error(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends all connections.
func (n *NATSCaller) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for cell, nc := range n.conns {
		nc.Close()
		delete(n.conns, cell)
	}
}

func (n *NATSCaller) conn(ctx context.Context, cell string) (*nats.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if nc := n.conns[cell]; nc != nil && !nc.IsClosed() {
		return nc, nil
	}
	if _, err := n.creds(ctx, cell); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
	}
	later := context.WithoutCancel(ctx) // a reconnect happens long after the call that opened the connection
	nc, err := Connect(n.url, "kaphera cloud, cell "+cell, n.tls, func() ([]byte, error) {
		ctx, cancel := context.WithTimeout(later, 10*time.Second)
		defer cancel()
		return n.creds(ctx, cell)
	})
	if err != nil {
		return nil, fmt.Errorf("connect to the account of cell %s: %w: %w", cell, ErrNotConnected, err)
	}
	n.conns[cell] = nc
	return nc, nil
}

// Connect opens a NATS connection that reconnects for ever and reads its credentials afresh each time.
func Connect(url, name string, tlsConfig *tls.Config, creds func() ([]byte, error), more ...nats.Option) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(name),
		nats.Timeout(5 * time.Second),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(time.Second),
		nats.PingInterval(15 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.IgnoreAuthErrorAbort(),
		nats.UserJWT(
			func() (string, error) {
				c, err := creds()
				if err != nil {
					return "", err
				}
				return jwt.ParseDecoratedJWT(c)
			},
			func(nonce []byte) ([]byte, error) {
				c, err := creds()
				if err != nil {
					return nil, err
				}
				key, err := jwt.ParseDecoratedUserNKey(c)
				if err != nil {
					return nil, fmt.Errorf("credentials for %s: %w", name, err)
				}
				defer key.Wipe()
				return key.Sign(nonce)
			}),
	}
	if tlsConfig != nil {
		opts = append(opts, nats.Secure(tlsConfig))
	}
	return nats.Connect(url, append(opts, more...)...)
}
