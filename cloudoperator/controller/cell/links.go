// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/fault"
	"github.com/kaphera/kaphera/connector/audit"
)

// Links holds the cloud's connection into each cell's account and the last report that came through it.
type Links struct {
	access parts.Access
	now    func() time.Time

	mu        sync.Mutex
	m         map[string]*link
	listeners []chan event.GenericEvent
}

type link struct {
	nc     *nats.Conn
	creds  []byte
	at     string // digest of where nc was opened
	report *celllink.Report
	heard  time.Time
	watch  audit.Watch // of the heads that are kept
}

func (k *link) see(h cellrpc.Kept) {
	if h.Moved {
		k.watch.Moved(h.Chain)
	} else {
		k.watch.See(h.Head, h.Came)
	}
}

// NewLinks makes an empty set.
func NewLinks(access parts.Access, now func() time.Time) *Links {
	return &Links{access: access, now: now, m: map[string]*link{}}
}

// Events returns a channel that gets the Cell whenever its agent has reported. A slow reader misses none but gets fewer.
func (l *Links) Events() <-chan event.GenericEvent {
	c := make(chan event.GenericEvent, 256)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listeners = append(l.listeners, c)
	return c
}

// Report returns the last report of a cell and when it was heard; nil when none is known.
func (l *Links) Report(cell string) (*celllink.Report, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.m[cell]
	if k == nil {
		return nil, time.Time{}
	}
	return k.report, k.heard
}

// Alarms are what is wrong with the audit chains of a cell, by the heads that it has reported, as far as it was seen after a time.
func (l *Links) Alarms(cell string, after time.Time) []audit.Alarm {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.m[cell]; k != nil {
		return k.watch.Alarms(after)
	}
	return nil
}

// Renew lets the connection of a cell, if there is one, reconnect with these credentials.
func (l *Links) Renew(cell string, creds []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.m[cell]; k != nil {
		k.creds = creds
	}
}

// Open returns the connection into the account of a cell. The first call makes the streams and reads the last report.
func (l *Links) Open(ctx context.Context, cell string, creds []byte) (*nats.Conn, error) {
	l.Renew(cell, creds)
	l.mu.Lock()
	k := l.m[cell]
	l.mu.Unlock()
	p, err := l.access.Platform(ctx)
	if err != nil {
		return nil, err
	}
	e, tlsConfig, err := l.access.Reach(ctx, p, parts.NATS)
	if err != nil {
		return nil, err
	}
	at := kube.Digest(e)
	if k != nil && k.at != at { // the server has moved, or is trusted by another authority
		k.nc.Close()
	}
	if k != nil && k.nc.IsConnected() {
		return k.nc, nil
	}
	if k != nil && !k.nc.IsClosed() {
		return nil, fmt.Errorf("the connection to the message server is down: %w", nats.ErrConnectionReconnecting)
	}
	k = &link{creds: creds, at: at}
	current := func() ([]byte, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return k.creds, nil
	}
	nc, err := cellrpc.Connect(e.URL, "kaphera cloud operator, cell "+cell, tlsConfig, current)
	if err != nil {
		return nil, fmt.Errorf("connect to the account of cell %s: %w", cell, err)
	}
	if err := l.start(ctx, cell, nc, k); err != nil {
		nc.Close()
		return nil, err
	}
	return nc, nil
}

func (l *Links) start(ctx context.Context, cell string, nc *nats.Conn, k *link) error {
	if err := celllink.EnsureStreams(ctx, nc); err != nil {
		if errors.Is(err, celllink.ErrNoRoom) {
			return fault.Right(fmt.Sprintf("let its JetStream keep %d bytes on disk for each cell", celllink.Storage), "the message server has no JetStream for cell %s, or no room in it: %v", cell, err)
		}
		return err
	}
	read, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	if err := cellrpc.ReadHeads(read, nc, "*", k.see); err != nil {
		return fmt.Errorf("read the audit heads that are kept of cell %s: %w", cell, err)
	}
	logger := log.FromContext(ctx)
	sub, err := nc.Subscribe(celllink.SubjectReport, func(m *nats.Msg) { //nolint:contextcheck // reports come long after this call
		r, err := l.store(cell, k, m.Data, l.now())
		if err != nil {
			logger.Error(err, "report", "cell", cell)
			return
		}
		if err := l.keepHeads(nc, k, r.AuditHeads); err != nil {
			logger.Error(err, "audit heads", "cell", cell)
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to reports of cell %s: %w", cell, err)
	}
	if _, err := nc.Subscribe(cellrpc.SubjectHeads+"*", func(m *nats.Msg) { // of those who move from or to here; what is reported is seen already
		h := cellrpc.Kept{Came: l.now()}
		if err := json.Unmarshal(m.Data, &h); err != nil {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if last, _ := k.watch.Last(h.Chain); h.Moved || h.Seq > last.Seq {
			k.see(h)
		}
	}); err != nil {
		return fmt.Errorf("subscribe to audit heads of cell %s: %w", cell, err)
	}
	// An agent that sends faster than this reads takes a bounded part of its memory: what is dropped, a later report says.
	if err := sub.SetPendingLimits(16, 16<<20); err != nil {
		return fmt.Errorf("bound the reports of cell %s: %w", cell, err)
	}
	data, at, err := celllink.Last(ctx, nc, celllink.StreamReports, celllink.SubjectReport)
	if err != nil {
		return err
	}
	k.nc = nc
	l.mu.Lock()
	l.m[cell] = k
	l.mu.Unlock()
	if data == nil {
		return nil
	}
	_, err = l.store(cell, k, data, at)
	return err
}

func (l *Links) store(cell string, k *link, data []byte, at time.Time) (*celllink.Report, error) {
	var r celllink.Report
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("the report of cell %s is not JSON: %w", cell, err)
	}
	if r.Cell != cell {
		return nil, fmt.Errorf("a report in the account of cell %s is for cell %q", cell, r.Cell)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.Before(k.heard) {
		return &r, nil
	}
	k.report, k.heard = &r, at
	e := event.GenericEvent{Object: &cloud.Cell{ObjectMeta: metav1.ObjectMeta{Name: cell, Namespace: l.access.Namespace}}}
	for _, c := range l.listeners {
		select {
		case c <- e:
		default: // the reader is behind and will see this report with the next event
		}
	}
	return &r, nil
}

// keepHeads keeps the heads of a report that differ from those kept last. It is called for one report after the other.
func (l *Links) keepHeads(nc *nats.Conn, k *link, heads []audit.Head) error {
	ctx, cancel := context.WithTimeout(context.Background(), headTimeout)
	defer cancel()
	for _, h := range heads {
		l.mu.Lock()
		last, _ := k.watch.Last(h.Chain)
		l.mu.Unlock()
		if last == h {
			continue
		}
		if err := celllink.KeepHead(ctx, nc, h); err != nil {
			return err
		}
		l.mu.Lock()
		k.watch.See(h, l.now())
		l.mu.Unlock()
	}
	return nil
}

const headTimeout = 10 * time.Second

// Close ends the connection of a cell and forgets its report.
func (l *Links) Close(cell string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.m[cell]; k != nil {
		k.nc.Close()
		delete(l.m, cell)
	}
}
