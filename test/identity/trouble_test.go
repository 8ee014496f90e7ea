// SPDX-License-Identifier: Apache-2.0

package identity_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	"github.com/kaphera/kaphera/connector/vault"
	"github.com/kaphera/kaphera/connector/wallet"
)

// lose does what a request asks for and lets the answer get lost, the first times that a path is asked for.
func lose(path string, times int32, seen *atomic.Int32) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !strings.HasSuffix(r.URL.Path, path) || r.Method != http.MethodPost || seen.Add(1) > times {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
}

func (r *rig) count(query string) int {
	r.t.Helper()
	var n int
	must(r.t, r.db.QueryRow(r.t.Context(), query).Scan(&n))
	return n
}

// An answer that gets lost, on either side, is repeated by its sender, and nothing is issued or held twice.
func TestLostAnswersDoubleNothing(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.entitle("authority", "acme", grant(membership, `{}`))
	var requests, deliveries atomic.Int32
	down := make(chan struct{})
	r.atIssuer.set(lose("/issuance/credentials", 2, &requests))
	// Nothing is delivered before both answers to the request were lost: else the delivery would end the request.
	lost := lose("/dcp/credentials", 2, &deliveries)
	r.atWallet.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasSuffix(req.URL.Path, "/dcp/credentials") {
			select {
			case <-down:
			default:
				http.Error(w, "down", http.StatusServiceUnavailable)
				return
			}
		}
		lost(w, req, next)
	})
	r.request("acme", "authority", membership)
	r.await("the third attempt", func() bool { return requests.Load() >= 3 })
	close(down)
	r.awaitState("acme", "authority", membership, adminapi.CredentialValid)
	r.await("the deliveries to end", func() bool { return r.count("SELECT count(*) FROM issuer.requests WHERE NOT delivered") == 0 })
	if n := deliveries.Load(); n < 3 {
		t.Errorf("delivered %d times, and two of the answers were lost", n)
	}
	for what, query := range map[string]string{"requests at the issuer": "SELECT count(*) FROM issuer.requests", "issued": "SELECT count(*) FROM issuer.credentials",
		"requests of the wallet": "SELECT count(*) FROM wallet.requests", "held": "SELECT count(*) FROM wallet.credentials"} {
		if n := r.count(query); n != 1 {
			t.Errorf("%s: %d, want 1", what, n)
		}
	}
}

// Both hosts are down at first, one after the other.
func TestIssuanceOutlastsOutages(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.entitle("authority", "acme", grant(membership, `{}`))
	var asked, delivered atomic.Int32
	r.atIssuer.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if asked.Add(1) <= 3 {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, req)
	})
	r.atWallet.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasSuffix(req.URL.Path, "/dcp/credentials") && delivered.Add(1) <= 2 {
			http.Error(w, "starting", http.StatusBadGateway)
			return
		}
		next.ServeHTTP(w, req)
	})
	r.request("acme", "authority", membership)
	r.awaitState("acme", "authority", membership, adminapi.CredentialValid)
	if asked.Load() <= 3 || delivered.Load() <= 2 {
		t.Errorf("the outages were not met: asked %d, delivered %d", asked.Load(), delivered.Load())
	}
}

// A wallet that dies while it has a request leased leaves it to another.
func TestAnotherReplicaTakesOver(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.entitle("authority", "acme", grant(membership, `{}`))
	r.stopWallet()
	r.request("acme", "authority", membership)
	_, err := r.db.Exec(t.Context(), "UPDATE wallet.requests SET leased_until = $1, attempts = 1", r.now().Add(time.Minute))
	must(t, err)
	other, err := wallet.New(wallet.Deps{DB: r.db, Vault: vault.NewStore(r.keys, time.Minute), Verifier: r.verifier, PublicURL: r.walletHost.URL, Now: r.now,
		Log: slog.New(slog.DiscardHandler), Timing: wallet.Timing{Poll: 20 * time.Millisecond}})
	must(t, err)
	defer run(other.Run)()
	r.advance(2 * time.Minute) // the lease runs out
	r.awaitState("acme", "authority", membership, adminapi.CredentialValid)
}

// A holder that asks again while a delivery is under way gets another one, whatever becomes of the first, and does not wait for that.
func TestARepeatIsDeliveredAtOnce(t *testing.T) {
	r := newRig(t, dcp.Settings{})
	r.entitle("authority", "acme", grant(membership, `{}`))
	asked, arrived, answer := make(chan []byte, 2), make(chan struct{}, 8), make(chan struct{})
	r.atIssuer.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasSuffix(req.URL.Path, "/issuance/credentials") {
			body, _ := io.ReadAll(req.Body)
			req.Body = io.NopCloser(bytes.NewReader(body))
			asked <- body
		}
		next.ServeHTTP(w, req)
	})
	r.atWallet.set(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if strings.HasSuffix(req.URL.Path, "/dcp/credentials") {
			arrived <- struct{}{}
			<-answer
		}
		next.ServeHTTP(w, req)
	})
	defer close(answer)
	r.request("acme", "authority", membership)
	body := <-asked
	<-arrived
	token, err := r.services["acme"].Token(t.Context(), r.local("acme"), r.issuerDID("authority"), nil)
	must(t, err)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.issuerHost.URL+"/authority/issuance/credentials", bytes.NewReader(body))
	must(t, err)
	req.Header.Set("Authorization", token)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Fatalf("the repeat is answered %s", res.Status)
	}
	select {
	case <-arrived:
	case <-time.After(time.Minute):
		t.Fatal("nothing is delivered while the first delivery is unanswered")
	}
}
