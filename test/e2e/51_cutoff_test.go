// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// cutOff cuts the agent's way and then the whole link between the clusters while participants on both sides exchange data all the time.
func cutOff(t *testing.T) {
	api := cloud(t)
	connected := func(want string) {
		t.Helper()
		eventually(t, "cell "+companyCell+" connected: "+want, func(ctx context.Context) (bool, string) {
			c, err := api.GetCellWithResponse(ctx, companyCell)
			if err != nil {
				return false, err.Error()
			}
			for _, k := range c.JSON200.Status.Conditions {
				if k.Type == "Connected" {
					return k.Status == want, k.Message
				}
			}
			return false, string(c.Body)
		})
	}
	connected("True")
	must(t, sandbox, "firewall", "heal", companyCluster(t)) // of a run that was killed
	const leaver, neighbour = "e2e-leaver", "e2e-neighbour"
	asset := "e2e-cut-off-" + uuid.NewString()[:8] // on a cluster that is kept, negotiations of another run are there
	placeInFrankfurt(t, api, leaver, neighbour)
	frankfurt, shared := companyConnector(t), sharedConnector(t)
	oem, next, supplier := frankfurt.participant(t, "rheintal-motoren"), frankfurt.participant(t, neighbour), shared.participant(t, "brandt-guss")
	oem.offers(t, asset, "http://pcf-backend.plant.svc/readyz")
	supplier.offers(t, asset, "http://pcf-backend.supplier-backend.svc/readyz")
	across := []*exchange{newExchange(t, supplier, oem, asset), newExchange(t, oem, supplier, asset)}
	inside := newExchange(t, next, oem, asset)
	all := append(slices.Clone(across), inside)
	held := make([]string, len(all)) // transfers that are open when the link is cut
	for i, e := range all {
		if held[i] = e.open(t.Context()); held[i] == "" {
			t.Fatalf("no data flows %s: %v", e, e.failures)
		}
	}

	load, stop := context.WithCancel(t.Context())
	exchanging, abandon := context.WithCancel(t.Context()) // what is cut off waits for as long as that takes; a connector sends a message for 30 min
	var working sync.WaitGroup
	for _, e := range all {
		for range 2 {
			working.Go(func() { e.work(exchanging, load) })
		}
	}
	t.Cleanup(func() { abandon(); working.Wait() })
	goesOn := func(while string, exchanges ...*exchange) {
		t.Helper()
		for _, e := range exchanges {
			before := e.done.Load()
			eventually(t, e.String()+" "+while, func(context.Context) (bool, string) {
				return e.done.Load() >= before+4, fmt.Sprintf("%d exchanges, %d before", e.done.Load(), before) // two of each worker
			})
		}
	}
	goesOn("goes on", all...)

	heal := func() error { // also after the test's own time
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		said, err := exec.CommandContext(ctx, sandbox, "firewall", "heal", companyCluster(t)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	}
	t.Cleanup(func() {
		if err := heal(); err != nil {
			t.Error(err)
		}
	})
	agents := strings.Fields(companyKubectl(t, "get", "pods", "-n", companyNamespace, "-l", "app.kubernetes.io/name=kaphera-cell-agent", "-o", "jsonpath={.items[*].status.podIP}"))
	must(t, sandbox, append([]string{"firewall", "cut", companyCluster(t)}, agents...)...)
	expired := make(chan error, 1)
	go func() {
		_, err := api.PutAssetWithResponse(t.Context(), "oem", "e2e-too-late", client.Asset{
			ID: "e2e-too-late", Properties: map[string]any{"name": "written by a command that expired"},
			DataAddress: map[string]string{"type": "HttpData", "baseUrl": "http://pcf-backend.plant.svc/readyz"},
		})
		expired <- err
	}()
	if _, err := api.DeleteParticipantWithResponse(t.Context(), leaver, &client.DeleteParticipantParams{}); err != nil {
		t.Fatal(err)
	}
	goesOn("goes on without the agent", all...)

	must(t, sandbox, "firewall", "cut", companyCluster(t))
	// What is open goes on to flow inside. Who is a member still is asked of the issuer, at the other end: what begins now waits, as what goes across does.
	for range 5 {
		if data, err := inside.fetch(t.Context(), held[2]); err != nil || data != "ok" {
			t.Errorf("%s, without the link: %q, %v", inside, data, err)
		}
	}
	for i, e := range all {
		if err := e.consumer.call(t.Context(), http.MethodPost, "/transfers/"+held[i]+"/complete", struct{}{}, nil); err != nil {
			t.Errorf("%s: complete %s: %v", e, held[i], err)
		}
	}
	for i, e := range across {
		eventually(t, e.String()+": a message waits", func(ctx context.Context) (bool, string) {
			var is adminapi.Transfer
			err := e.consumer.call(ctx, http.MethodGet, "/transfers/"+held[i], nil, &is)
			return err == nil && is.State == "STARTED" && is.Retry != nil, fmt.Sprintf("%s %+v %v", is.State, is.Retry, err)
		})
	}
	connected("False")
	eventually(t, "the status says since when it is not heard", func(context.Context) (bool, string) {
		_, all, _ := command(t, "kaphera", "status")
		return strings.Contains(all, "not heard from since"), all
	})
	if _, err := api.GetParticipantWithResponse(t.Context(), leaver); err != nil {
		t.Errorf("a participant that still runs is forgotten: %v", err)
	}
	if err := <-expired; err == nil || !strings.Contains(err.Error(), "what was asked has expired") {
		t.Errorf("a command to a cell that is cut off: %v", err)
	}

	if err := heal(); err != nil {
		t.Fatal(err)
	}
	goesOn("goes on again", all...)
	stop()
	defer time.AfterFunc(patience, abandon).Stop()
	working.Wait()
	connected("True")
	eventually(t, "what was removed meanwhile is removed", func(ctx context.Context) (bool, string) {
		p, err := api.GetParticipantWithResponse(ctx, leaver)
		if client.IsNotFound(err) {
			return true, ""
		}
		if err != nil {
			return false, err.Error()
		}
		return false, string(p.Body)
	})
	left := strings.Fields(companyKubectl(t, "get", "participantcontexts", "-n", companyNamespace, "-o", "jsonpath={.items[*].metadata.name}"))
	if slices.Sort(left); !slices.Equal(left, []string{neighbour, "rheintal-motoren"}) {
		t.Errorf("in the company's cluster are: %s", left)
	}
	if status, _ := publicGet(t, readFile(t, caFile()), "https://dataspace."+os.Getenv("TF_VAR_company_domain")+"/"+leaver+"/did.json"); status == http.StatusOK {
		t.Error("its DID document still answers")
	}
	if _, err := api.GetAssetWithResponse(t.Context(), "oem", "e2e-too-late"); !client.IsNotFound(err) {
		t.Errorf("the command that expired was executed: %v", err)
	}
	for i, e := range all {
		eventually(t, e.String()+": what was completed without the link is", func(ctx context.Context) (bool, string) {
			var is adminapi.Transfer
			err := e.consumer.call(ctx, http.MethodGet, "/transfers/"+held[i], nil, &is)
			return err == nil && is.State == "COMPLETED", fmt.Sprintf("%s %+v %v", is.State, is.Retry, err)
		})
		e.transfers = append(e.transfers, held[i])
	}
	for _, e := range all {
		e.compare(t)
		t.Logf("%s: %d negotiations and transfers", e, len(e.transfers))
	}
	for name, p := range map[string]*party{"oem": oem, "supplier": supplier, neighbour: next} {
		wholeTrail(t, name, p)
	}
}

// placeInFrankfurt makes more participants of the company there, and waits until they take part.
func placeInFrankfurt(t *testing.T, api *client.API, names ...string) {
	t.Helper()
	oem, err := api.GetParticipantWithResponse(t.Context(), "oem")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		spec := oem.JSON200.Spec
		spec.Identity.Context = name
		if _, err := api.PutParticipantWithResponse(t.Context(), name, &client.PutParticipantParams{}, client.Participant{Spec: spec}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeParticipant(t, api, name) })
	}
	for _, name := range names {
		eventually(t, name+" takes part", func(ctx context.Context) (bool, string) {
			p, err := api.GetParticipantWithResponse(ctx, name)
			if err != nil {
				return false, err.Error()
			}
			return ready(p.JSON200.Status.Conditions)
		})
	}
}

// connector is the internal API of a cell's control plane, asked in its cluster, past the cloud.
type connector struct {
	base, token string
	http        *http.Client
}

func sharedConnector(t *testing.T) *connector {
	t.Helper()
	_, cs := kube(t)
	conn := connectorOfCell(t, cs)
	base, token := internalAPI(t, cellNamespace, conn.Status.InternalURL, conn.Status.InternalSecret)
	return &connector{base, token, &http.Client{Timeout: time.Minute}}
}

// companyConnector asks from the node of the company's cluster.
func companyConnector(t *testing.T) *connector {
	t.Helper()
	var list edc.ConnectorList
	if err := json.Unmarshal([]byte(companyKubectl(t, "get", "connectors", "-n", companyNamespace, "-o", "json")), &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("%d connectors, %v", len(list.Items), err)
	}
	is := list.Items[0].Status
	u, err := url.Parse(is.InternalURL)
	if err != nil {
		t.Fatal(err)
	}
	service, _, _ := strings.Cut(u.Hostname(), ".")
	address := strings.TrimSpace(companyKubectl(t, "get", "service", "-n", companyNamespace, service, "-o", "jsonpath={.spec.clusterIP}"))
	var secret corev1.Secret
	if err := json.Unmarshal([]byte(companyKubectl(t, "get", "secret", "-n", companyNamespace, is.InternalSecret, "-o", "json")), &secret); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: dialIn("/run/netns/kaphera-" + companyCluster(t)), MaxIdleConnsPerHost: 10}
	t.Cleanup(transport.CloseIdleConnections)
	return &connector{"http://" + net.JoinHostPort(address, u.Port()), string(secret.Data["token"]), &http.Client{Transport: transport, Timeout: time.Minute}}
}

// dialIn connects from inside a network namespace, to addresses without a host name.
func dialIn(namespace string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		type result struct {
			conn net.Conn
			err  error
		}
		done := make(chan result, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
			there, err := os.Open(namespace)
			if err != nil {
				done <- result{nil, err}
				return
			}
			defer func() { _ = there.Close() }()
			if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
				done <- result{nil, err}
				return
			}
			conn, err := (&net.Dialer{Timeout: time.Minute}).DialContext(ctx, network, address)
			done <- result{conn, err}
		}()
		r := <-done
		return r.conn, r.err
	}
}

func (c *connector) call(ctx context.Context, method, path string, body, into any) error {
	var sent bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&sent).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, &sent)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	switch {
	case err != nil:
		return err
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, answer)
	case into == nil:
		return nil
	}
	if text, ok := into.(*string); ok {
		*text = string(answer)
		return nil
	}
	return json.Unmarshal(answer, into)
}

// party is a participant at its connector.
type party struct {
	*connector
	name, did string // name of its context
}

func (c *connector) participant(t *testing.T, name string) *party {
	t.Helper()
	var p adminapi.Participant
	if err := c.call(t.Context(), http.MethodGet, "/admin/v1/participants/"+name, nil, &p); err != nil {
		t.Fatal(err)
	}
	return &party{c, name, p.DID}
}

func (p *party) call(ctx context.Context, method, path string, body, into any) error {
	return p.connector.call(ctx, method, "/api/"+p.name+"/v1"+path, body, into)
}

// offers has it offer what its backend answers to everybody, under no use case, so that it waits for nobody.
func (p *party) offers(t *testing.T, asset, backend string) {
	t.Helper()
	a := adminapi.Asset{ID: asset, Properties: map[string]any{"name": asset}, DataAddress: map[string]string{"type": "HttpData", "baseUrl": backend}}
	offer := adminapi.Offer{ID: "offer-" + asset, Assets: []string{asset}, ContractPolicy: json.RawMessage(`{"@type":"Set","permission":[{"action":"use"}]}`)}
	for _, put := range []struct {
		path string
		body any
	}{{"/assets/" + asset, a}, {"/offers/" + offer.ID, offer}} {
		eventually(t, p.name+" has "+put.path, func(ctx context.Context) (bool, string) { // a pod that is not ready for a moment is none of this test's business
			err := p.call(ctx, http.MethodPut, put.path, put.body, nil)
			return err == nil, fmt.Sprint(err)
		})
	}
}

// exchange is one party that negotiates for another's asset, transfers, fetches and completes, again and again.
type exchange struct {
	consumer, provider *party
	asset, offer       string
	done               atomic.Int32

	mu           sync.Mutex
	negotiations []string // all that were begun, by the consumer's ids
	transfers    []string
	failures     []error
}

func newExchange(t *testing.T, consumer, provider *party, asset string) *exchange {
	t.Helper()
	e := &exchange{consumer: consumer, provider: provider, asset: asset}
	eventually(t, e.String()+": the offer is in the catalog", func(ctx context.Context) (bool, string) {
		var catalog []adminapi.CatalogEntry
		err := consumer.call(ctx, http.MethodGet, "/catalog?counterparty="+url.QueryEscape(provider.did), nil, &catalog)
		for _, c := range catalog {
			if c.AssetID == asset {
				e.offer = c.OfferID
			}
		}
		return e.offer != "", fmt.Sprint(err)
	})
	return e
}

func (e *exchange) String() string { return e.consumer.name + " from " + e.provider.name }

// until repeats a step until it is done, or ctx ends.
func (e *exchange) until(ctx context.Context, what string, step func() (bool, error)) bool {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := step()
		if ok {
			return true
		}
		select {
		case <-ctx.Done():
			e.failed("%s: %w, last: %v", what, ctx.Err(), err)
			return false
		case <-tick.C:
		}
	}
}

func (e *exchange) failed(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failures = append(e.failures, fmt.Errorf(format, args...))
}

// work exchanges until load ends, and then what is under way.
func (e *exchange) work(ctx, load context.Context) {
	for load.Err() == nil {
		transfer := e.open(ctx)
		if transfer == "" {
			return
		}
		is := adminapi.Transfer{State: "STARTED"}
		if !e.until(ctx, "complete transfer "+transfer, func() (bool, error) {
			if is.State == "STARTED" {
				_ = e.consumer.call(ctx, http.MethodPost, "/transfers/"+transfer+"/complete", struct{}{}, nil) // it may be under way already
			}
			err := e.consumer.call(ctx, http.MethodGet, "/transfers/"+transfer, nil, &is)
			return err == nil && (is.State == "COMPLETED" || is.State == "TERMINATED"), err
		}) {
			return
		}
		e.mu.Lock()
		e.transfers = append(e.transfers, transfer)
		e.mu.Unlock()
		e.done.Add(1)
	}
}

// open negotiates, transfers and fetches; it returns the transfer, empty when that failed.
func (e *exchange) open(ctx context.Context) (transfer string) {
	negotiation := uuid.NewString()
	e.mu.Lock()
	e.negotiations = append(e.negotiations, negotiation)
	e.mu.Unlock()
	var n adminapi.Negotiation
	if !e.until(ctx, "begin negotiation "+negotiation, func() (bool, error) { // the same again begins no other
		err := e.consumer.call(ctx, http.MethodPost, "/negotiations", adminapi.NegotiationRequest{ID: negotiation, Counterparty: e.provider.did, OfferID: e.offer}, &n)
		return err == nil, err
	}) || !e.until(ctx, "end of negotiation "+negotiation, func() (bool, error) {
		err := e.consumer.call(ctx, http.MethodGet, "/negotiations/"+negotiation, nil, &n)
		return err == nil && (n.State == "FINALIZED" || n.State == "TERMINATED"), err
	}) {
		return ""
	}
	if n.State != "FINALIZED" {
		e.failed("negotiation %s ended %s: %+v", n.ID, n.State, n.Reason)
		return ""
	}
	transfer = uuid.NewString()
	var is adminapi.Transfer
	var data string
	if !e.until(ctx, "begin transfer "+transfer, func() (bool, error) {
		err := e.consumer.call(ctx, http.MethodPost, "/transfers", adminapi.TransferRequest{ID: transfer, AgreementID: n.AgreementID}, &is)
		return err == nil, err
	}) || !e.until(ctx, "fetch by transfer "+transfer, func() (bool, error) {
		var err error
		data, err = e.fetch(ctx, transfer)
		return err == nil, err
	}) {
		return ""
	}
	if data != "ok" {
		e.failed("transfer %s: the data is %q", transfer, data)
	}
	return transfer
}

func (e *exchange) fetch(ctx context.Context, transfer string) (data string, err error) {
	err = e.consumer.call(ctx, http.MethodGet, "/transfers/"+transfer+"/data", nil, &data)
	return strings.TrimSpace(data), err
}

// compare holds what one side has of the exchange against what the other has: each negotiation FINALIZED, its agreement, and its transfer COMPLETED,
// once on both, and nothing else.
func (e *exchange) compare(t *testing.T) {
	t.Helper()
	for _, err := range e.failures {
		t.Errorf("%s: %v", e, err)
	}
	type side struct {
		negotiations map[string]adminapi.Negotiation // by the consumer's id
		transfers    map[string]adminapi.Transfer    // by agreement
		agreements   map[string]adminapi.Agreement
	}
	read := func(p, other *party) side {
		t.Helper()
		s := side{map[string]adminapi.Negotiation{}, map[string]adminapi.Transfer{}, map[string]adminapi.Agreement{}}
		for _, n := range everything(t, p, "negotiations", func(n adminapi.Negotiation) time.Time { return n.CreatedAt }) {
			id := n.ID
			if n.Role == "provider" {
				id = n.CounterpartyPID
			}
			if n.AssetID != e.asset || n.Counterparty != other.did || (n.Role == "consumer") != (p == e.consumer) {
				continue
			}
			if _, doubled := s.negotiations[id]; doubled || n.State != "FINALIZED" {
				t.Errorf("%s: negotiation %s of %s is %s, doubled %v: %+v", e, n.ID, p.name, n.State, doubled, n.Reason)
			}
			s.negotiations[id] = n
		}
		for id, n := range s.negotiations {
			var a adminapi.Agreement
			if err := p.call(t.Context(), http.MethodGet, "/agreements/"+n.AgreementID, nil, &a); err != nil || a.NegotiationID != n.ID || a.Consumer != e.consumer.did || a.Provider != e.provider.did {
				t.Errorf("%s: the agreement of negotiation %s at %s: %+v, %v", e, id, p.name, a, err)
			}
			s.agreements[n.AgreementID] = a
		}
		for _, tr := range everything(t, p, "transfers", func(tr adminapi.Transfer) time.Time { return tr.CreatedAt }) {
			if s.agreements[tr.AgreementID].ID == "" {
				continue
			}
			if _, doubled := s.transfers[tr.AgreementID]; doubled || tr.State != "COMPLETED" {
				t.Errorf("%s: transfer %s of %s is %s, doubled %v: %+v", e, tr.ID, p.name, tr.State, doubled, tr.Reason)
			}
			s.transfers[tr.AgreementID] = tr
		}
		return s
	}
	consumer, provider := read(e.consumer, e.provider), read(e.provider, e.consumer)
	begun := len(e.negotiations)
	for _, s := range []side{consumer, provider} {
		if len(s.negotiations) != begun || len(s.agreements) != begun || len(s.transfers) != begun || len(e.transfers) != begun {
			t.Errorf("%s: of %d negotiations there are %d, %d agreements and %d transfers, %d of which completed", e, begun, len(s.negotiations), len(s.agreements), len(s.transfers), len(e.transfers))
		}
	}
	for _, id := range e.negotiations {
		c, p := consumer.negotiations[id], provider.negotiations[id]
		if c.CounterpartyPID != p.ID || c.AgreementID == "" || c.AgreementID != p.AgreementID ||
			!slices.Contains(e.transfers, consumer.transfers[c.AgreementID].ID) || provider.transfers[c.AgreementID].ID == "" {
			t.Errorf("%s: negotiation %s is %+v at the consumer and %+v at the provider", e, id, c, p)
		}
	}
}

// everything lists all of a kind that a participant has, page by page.
func everything[T any](t *testing.T, p *party, kind string, createdAt func(T) time.Time) (all []T) {
	t.Helper()
	const most = 500
	for before := ""; ; {
		var page []T
		if err := p.call(t.Context(), http.MethodGet, fmt.Sprintf("/%s?limit=%d&before=%s", kind, most, url.QueryEscape(before)), nil, &page); err != nil {
			t.Fatal(err)
		}
		all = append(all, page...)
		if len(page) < most {
			return all
		}
		before = createdAt(page[most-1]).Format(time.RFC3339Nano)
	}
}

// wholeTrail reads a participant's audit trail through the cloud: it verifies against the heads that the cloud has, and each number is there once.
func wholeTrail(t *testing.T, name string, p *party) {
	t.Helper()
	trail := filepath.Join(t.TempDir(), name+".jsonl")
	eventually(t, "the audit trail of "+name+" is whole", func(context.Context) (bool, string) { // a head may come in between the two
		if _, all, code := command(t, "kaphera", "audit", "export", name, "--to", trail); code != 0 {
			return false, all
		}
		_, all, code := command(t, "kaphera", "audit", "verify", trail, "--participant", name)
		return code == 0, all
	})
	last, agreements := int64(0), map[string]int{}
	for line := range strings.Lines(string(readFile(t, trail))) {
		var r struct {
			Seq  int64  `json:"seq"`
			Type string `json:"type"`
			Body struct {
				Negotiation string `json:"negotiation"`
			} `json:"body"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Type == "" { // the head
			continue
		}
		if r.Seq != last+1 {
			t.Errorf("%s: record %d comes after %d", name, r.Seq, last)
		}
		last = r.Seq
		if r.Type == "agreement" {
			agreements[r.Body.Negotiation]++
		}
	}
	for id, n := range agreements {
		if n != 1 {
			t.Errorf("%s has %d agreements of negotiation %s on record", name, n, id)
		}
	}
	if last == 0 || len(agreements) == 0 {
		t.Errorf("%s (%s) has %d records, %d agreements", name, p.name, last, len(agreements))
	}
}
