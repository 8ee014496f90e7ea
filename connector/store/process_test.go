// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/dsp/state"
	"github.com/kaphera/kaphera/connector/profile"
	"github.com/kaphera/kaphera/connector/store"
	"github.com/kaphera/kaphera/connector/store/pgtest"
)

// open makes a migrated database with one participant.
func open(t *testing.T, opt store.Options) (*store.Store, string) {
	t.Helper()
	dsn := pgtest.NewDatabase(t)
	s := connect(t, dsn, opt)
	if err := s.PutProfile(t.Context(), profile.Profile{Name: "pilot"}); err != nil {
		t.Fatal(err)
	}
	if err := s.PutParticipant(t.Context(), "acme", adminapi.Participant{DID: "did:web:acme", Profile: "pilot", Active: true}); err != nil {
		t.Fatal(err)
	}
	return s, dsn
}

func connect(t testing.TB, dsn string, opt store.Options) *store.Store {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Migrate(t.Context(), cfg.ConnConfig, nil); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func negotiation(id, counterparty string) *store.Negotiation {
	return &store.Negotiation{OfferID: "offer", Offer: json.RawMessage(`{"b":1,  "a":[]}`), Process: store.Process{Ctx: "acme", ID: id, Role: state.Provider,
		State: state.Requested, Step: state.Requested, Counterparty: counterparty, CounterpartyPID: "peer-" + id, Address: "https://peer", AssetID: "asset", Next: &store.Next{}}}
}

func insert(t *testing.T, s *store.Store, n *store.Negotiation, side store.Side) *store.Negotiation {
	t.Helper()
	out, made, err := s.InsertNegotiation(t.Context(), n, side)
	if err != nil || !made {
		t.Fatalf("insert %s: made %t, %v", n.ID, made, err)
	}
	return out
}

func TestOfferIsKeptVerbatim(t *testing.T) {
	s, _ := open(t, store.Options{})
	n := insert(t, s, negotiation("n1", "did:web:b"), store.Side{})
	if string(n.Offer) != `{"b":1,  "a":[]}` {
		t.Errorf("the offer came back as %s", n.Offer)
	}
}

func TestTheSameProcessOfACounterpartyIsOneRow(t *testing.T) {
	s, _ := open(t, store.Options{})
	insert(t, s, negotiation("n1", "did:web:b"), store.Side{MessageID: "m"})
	again := negotiation("n2", "did:web:b")
	again.CounterpartyPID = "peer-n1"
	if n, made, err := s.InsertNegotiation(t.Context(), again, store.Side{}); err != nil || made || n.ID != "n1" {
		t.Errorf("the same counterparty's process id: made %t, %+v, %v", made, n, err)
	}
	other := negotiation("n3", "did:web:c")
	other.CounterpartyPID = "peer-n1"
	insert(t, s, other, store.Side{}) // another counterparty may use the same id
}

func TestRefusedUpdatesLeaveNothing(t *testing.T) {
	s, _ := open(t, store.Options{})
	insert(t, s, negotiation("n1", "did:web:b"), store.Side{})
	refusal := errors.New("no")
	_, err := s.UpdateNegotiation(t.Context(), "acme", "n1", "m1", func(n *store.Negotiation, _ bool) (store.Side, error) {
		n.Step = state.Agreed
		return store.Side{MessageID: "m1"}, refusal
	})
	if !errors.Is(err, refusal) {
		t.Fatal(err)
	}
	take := func() (seen bool) {
		if _, err := s.UpdateNegotiation(t.Context(), "acme", "n1", "m1", func(_ *store.Negotiation, was bool) (store.Side, error) {
			seen = was
			return store.Side{MessageID: "m1"}, nil
		}); err != nil {
			t.Fatal(err)
		}
		return seen
	}
	if take() {
		t.Error("a refused message counts as received")
	}
	if !take() {
		t.Error("a message that was taken is not recognised")
	}
	if err := s.Prune(t.Context(), time.Hour); err != nil || !take() {
		t.Errorf("a fresh message id was forgotten, %v", err)
	}
	if err := s.Prune(t.Context(), 0); err != nil || take() {
		t.Errorf("an old message id is still known, %v", err)
	}
}

func TestTheDatabaseRefusesImpossibleRows(t *testing.T) {
	s, _ := open(t, store.Options{})
	for name, change := range map[string]func(*store.Negotiation){
		"a state that there is not":         func(n *store.Negotiation) { n.State = "SIGNED" },
		"an end that shows another state":   func(n *store.Negotiation) { n.Step = state.Finalized },
		"an end with something to do":       func(n *store.Negotiation) { n.State, n.Step, n.AgreementID = state.Finalized, state.Finalized, "a" },
		"an agreed one without agreement":   func(n *store.Negotiation) { n.State, n.Step = state.Agreed, state.Agreed },
		"a termination without a reason":    func(n *store.Negotiation) { n.State, n.Step, n.Next = state.Terminated, state.Terminated, nil },
		"a participant that there is not":   func(n *store.Negotiation) { n.Ctx = "nobody" },
		"a role that there is not":          func(n *store.Negotiation) { n.Role = "broker" },
		"an offer that is not JSON at all":  func(n *store.Negotiation) { n.Offer = json.RawMessage(`{`) },
		"a step of the other state machine": func(n *store.Negotiation) { n.Step = state.Starting },
	} {
		t.Run(name, func(t *testing.T) {
			n := negotiation("n1", "did:web:b")
			change(n)
			if _, made, err := s.InsertNegotiation(t.Context(), n, store.Side{}); err == nil {
				t.Errorf("was stored (made %t)", made)
			}
		})
	}
}

func TestEachRowIsLeasedOnce(t *testing.T) {
	s, _ := open(t, store.Options{Owner: "one"})
	const rows = 40
	for i := range rows {
		insert(t, s, negotiation(fmt.Sprint("n", i), fmt.Sprint("did:web:", i)), store.Side{})
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := map[string]int{}
	for range 8 {
		wg.Go(func() {
			for {
				leased, err := s.LeaseNegotiations(t.Context(), 3, store.Places{PerParticipant: 100, PerCounterparty: 100})
				if err != nil || len(leased) == 0 {
					if err != nil {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				for _, n := range leased {
					got[n.ID]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, n := range got {
		if n != 1 {
			t.Errorf("%s was leased %d times", id, n)
		}
	}
	if len(got) != rows {
		t.Errorf("%d rows were leased, want %d", len(got), rows)
	}
}

func TestOneCounterpartyDoesNotTakeAllLeases(t *testing.T) {
	s, _ := open(t, store.Options{Owner: "one"})
	for i := range 600 { // all due before the other's, and more than anybody looks at
		insert(t, s, negotiation(fmt.Sprint("slow", i), "did:web:slow"), store.Side{})
	}
	insert(t, s, negotiation("quick", "did:web:quick"), store.Side{})
	places := store.Places{PerParticipant: 100, PerCounterparty: 8}
	leased, err := s.LeaseNegotiations(t.Context(), 8, places)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, n := range leased {
		count[n.Counterparty]++
	}
	if count["did:web:slow"] != 4 || count["did:web:quick"] != 1 {
		t.Errorf("leased %v", count)
	}
	if again, err := s.LeaseNegotiations(t.Context(), 8, places); err != nil || len(again) != 0 {
		t.Errorf("more than its share: %d, %v", len(again), err)
	}
	// What is under way as a negotiation counts for transfers.
	final := negotiation("final", "did:web:slow")
	final.State, final.Step, final.AgreementID, final.Next = state.Finalized, state.Finalized, "ag", nil
	insert(t, s, final, store.Side{Agreement: &store.Agreement{ID: "ag", Role: state.Provider, Provider: "p", Consumer: "c", AssetID: "asset", Agreement: json.RawMessage(`{}`), SignedAt: time.Now()}})
	for id, counterparty := range map[string]string{"t-slow": "did:web:slow", "t-quick": "did:web:quick"} {
		if _, _, err := s.InsertTransfer(t.Context(), &store.Transfer{Format: "f", Process: store.Process{Ctx: "acme", ID: id, Role: state.Provider, State: state.Requested,
			Step: state.Requested, Counterparty: counterparty, CounterpartyPID: "p" + id, Address: "https://peer", AssetID: "asset", AgreementID: "ag", Next: &store.Next{}}}, store.Side{}); err != nil {
			t.Fatal(err)
		}
	}
	if transfers, err := s.LeaseTransfers(t.Context(), 8, places); err != nil || len(transfers) != 1 || transfers[0].ID != "t-quick" {
		t.Errorf("leased %d transfers, %v", len(transfers), err)
	}
}

func TestOneCounterpartyTakesOnePlaceOfALeaseOfHeadRequests(t *testing.T) {
	s, _ := open(t, store.Options{})
	for _, id := range []string{"slow1", "slow2", "slow3", "slow4", "slow5", "quick1", "quick2"} { // in this order
		n := negotiation(id, "did:web:"+id[:len(id)-1])
		n.State, n.Step, n.AgreementID, n.Next = state.Finalized, state.Finalized, "ag-"+id, nil
		insert(t, s, n, store.Side{AskForHead: true, Agreement: &store.Agreement{ID: "ag-" + id, Role: state.Provider, Provider: "p", Consumer: "c", AssetID: "asset", Agreement: json.RawMessage(`{}`), SignedAt: time.Now()}})
	}
	for _, want := range []string{"ag-quick1 ag-slow1", "ag-quick2 ag-slow2", "ag-slow3"} {
		leased, err := s.LeaseHeadRequests(t.Context(), 4, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range leased {
			got = append(got, r.AgreementID)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("leased %v, want %s", got, want)
		}
	}
	if leased, err := s.LeaseHeadRequests(t.Context(), 0, time.Hour); err != nil || len(leased) != 0 {
		t.Errorf("more than was asked for: %d, %v", len(leased), err)
	}
}

func TestLeasesEndWithTheirTimeAndWithTheirOwner(t *testing.T) {
	s, dsn := open(t, store.Options{Owner: "one", Lease: time.Millisecond})
	insert(t, s, negotiation("n1", "did:web:b"), store.Side{})
	lease := func(s *store.Store) int {
		leased, err := s.LeaseNegotiations(t.Context(), 1, store.Places{PerParticipant: 1, PerCounterparty: 1})
		if err != nil {
			t.Fatal(err)
		}
		return len(leased)
	}
	if lease(s) != 1 {
		t.Fatal("a due row is not leased")
	}
	long := connect(t, dsn, store.Options{Owner: "two", Lease: time.Hour})
	deadline := time.Now().Add(time.Minute)
	for lease(long) != 1 { // once the lease of a millisecond has run out
		if time.Now().After(deadline) {
			t.Fatal("a lease that has run out is not taken over")
		}
	}
	if lease(s) != 0 {
		t.Error("a row is leased twice")
	}
	if lease(connect(t, dsn, store.Options{Owner: "three"})) != 0 {
		t.Error("another process freed a lease that is not its own")
	}
	if lease(connect(t, dsn, store.Options{Owner: "two"})) != 1 {
		t.Error("a process that starts again does not free its own leases")
	}
}

func TestUpdatesReleaseAndSchedule(t *testing.T) {
	s, _ := open(t, store.Options{Owner: "one"})
	insert(t, s, negotiation("n1", "did:web:b"), store.Side{})
	if leased, err := s.LeaseNegotiations(t.Context(), 1, store.Places{PerParticipant: 1, PerCounterparty: 1}); err != nil || len(leased) != 1 {
		t.Fatal(len(leased), err)
	}
	update := func(next *store.Next, release bool) *store.Negotiation {
		n, err := s.UpdateNegotiation(t.Context(), "acme", "n1", "", func(n *store.Negotiation, _ bool) (store.Side, error) {
			n.Next, n.Release = next, release
			return store.Side{}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := update(&store.Next{After: time.Hour}, true); n.LeaseOwner != "" || n.NextAttemptAt == nil || n.Version != 2 {
		t.Errorf("owner %q, next %v, version %d", n.LeaseOwner, n.NextAttemptAt, n.Version)
	}
	if d, err := s.NextDue(t.Context(), 2*time.Hour); err != nil || d < 50*time.Minute || d > time.Hour {
		t.Errorf("next due in %s, %v", d, err)
	}
	if n := update(&store.Next{Never: true}, false); n.NextAttemptAt != nil {
		t.Errorf("next %v", n.NextAttemptAt)
	}
	if d, err := s.NextDue(t.Context(), time.Minute); err != nil || d != time.Minute {
		t.Errorf("next due in %s, %v", d, err)
	}
}

func TestAgreementAndAddressComeAndGoWithTheirProcess(t *testing.T) {
	s, _ := open(t, store.Options{})
	n := negotiation("n1", "did:web:b")
	n.State, n.Step, n.AgreementID, n.Next = state.Finalized, state.Finalized, "a1", nil
	insert(t, s, n, store.Side{Agreement: &store.Agreement{ID: "a1", Role: state.Provider, Provider: "did:web:acme", Consumer: "did:web:b", AssetID: "asset",
		Agreement: json.RawMessage(`{"@id":"a1"}`), SignedAt: time.Now()}})
	if a, err := s.Agreement(t.Context(), "acme", "a1"); err != nil || a.Step != state.Finalized || a.Address != "https://peer" {
		t.Errorf("agreement %+v, %v", a, err)
	}
	if _, err := s.Agreement(t.Context(), "other", "a1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("another participant reads it: %v", err)
	}
	tr := &store.Transfer{Format: "HttpData-PULL", Process: store.Process{Ctx: "acme", ID: "t1", Role: state.Consumer, State: state.Started, Step: state.Started,
		Counterparty: "did:web:b", Address: "https://peer", AssetID: "asset", AgreementID: "a1"}}
	if _, made, err := s.InsertTransfer(t.Context(), tr, store.Side{Address: &dps.DataAddress{Endpoint: "https://data", Properties: map[string]string{"authorization": "x"}}}); err != nil || !made {
		t.Fatal(made, err)
	}
	if a, err := s.DataAddress(t.Context(), "acme", "t1"); err != nil || a.Properties["authorization"] != "x" {
		t.Errorf("address %+v, %v", a, err)
	}
	if _, err := s.UpdateTransfer(t.Context(), "acme", "t1", "", func(*store.Transfer, bool) (store.Side, error) { return store.Side{DropAddress: true}, nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DataAddress(t.Context(), "acme", "t1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a dropped address: %v", err)
	}
	if summary, _, err := s.Summary(t.Context(), "acme"); err != nil || summary.Agreements != 1 || summary.Transfers[state.Started] != 1 {
		t.Errorf("summary %+v, %v", summary, err)
	}
	if err := s.DeleteParticipant(t.Context(), "acme"); err != nil {
		t.Errorf("removing a participant with all of its data: %v", err)
	}
}

func TestOffersAndPolicies(t *testing.T) {
	s, _ := open(t, store.Options{})
	access := "members"
	d := store.Definition{Ctx: "acme", ID: "d1", AccessPolicyID: &access, ContractPolicyID: "use", Selector: store.SelectAssets([]string{"a"})}
	if err := s.PutDefinition(t.Context(), d); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a definition without its policies: %v", err)
	}
	d.AccessPolicy, d.ContractPolicy = json.RawMessage(`{"a":1}`), json.RawMessage(`{"c":1}`)
	if err := s.PutDefinition(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	got, err := s.Definition(t.Context(), "acme", "d1")
	if err != nil || string(got.AccessPolicy) != `{"a":1}` || string(got.ContractPolicy) != `{"c":1}` {
		t.Fatalf("%+v, %v", got, err)
	}
	for id, want := range map[string]bool{"a": true, "b": false} {
		if got.Selects(&store.Asset{ID: id}) != want {
			t.Errorf("selects %s: %t", id, !want)
		}
	}
	if err := s.DeletePolicy(t.Context(), "acme", "use"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a policy in use was removed: %v", err)
	}
	if err := s.DeleteDefinition(t.Context(), "acme", "d1", "use", "members"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Policy(t.Context(), "acme", "use"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an inline policy stays: %v", err)
	}
	if err := s.DeleteProfile(t.Context(), "pilot"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a profile in use was removed: %v", err)
	}
}

// TestARevisionGovernsOffersOfItsProfileAndTheirPolicies: offers in other profiles keep their terms, and a policy behind an offer under a revision is changed
// by the next revision only.
func TestARevisionGovernsOffersOfItsProfileAndTheirPolicies(t *testing.T) {
	s, _ := open(t, store.Options{})
	policy, access := json.RawMessage(`{"c":1}`), "access"
	for _, id := range []string{"in-pilot", "elsewhere"} {
		d := store.Definition{Ctx: "acme", ID: id, UseCase: "recall", ContractPolicyID: id, ContractPolicy: policy, AccessPolicyID: &access, AccessPolicy: policy,
			Selector: store.SelectAssets([]string{"a"}), Profiles: []string{id}}
		if err := s.PutDefinition(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		access += "-elsewhere"
	}
	terms := store.Terms{ContractPolicy: json.RawMessage(`{"c":2}`), AccessPolicy: json.RawMessage(`{"a":2}`),
		Applies: func(profiles []string) bool { return slices.Equal(profiles, []string{"in-pilot"}) }}
	if err := s.BringIntoForce(t.Context(), "acme", "recall", terms, func(*adminapi.UseCaseRevision) (adminapi.UseCaseRevision, error) {
		return adminapi.UseCaseRevision{UseCase: "recall", Number: 1, Hash: "ab"}, nil
	}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"in-pilot": `{"c":2}`, "elsewhere": `{"c":1}`} {
		d, err := s.Definition(t.Context(), "acme", id)
		if err != nil || string(d.ContractPolicy) != want || (d.Revision != nil) != (id == "in-pilot") {
			t.Errorf("offer %s is %+v, %v", id, d, err)
		}
	}
	for id, refused := range map[string]bool{"in-pilot": true, "access": true, "elsewhere": false, "access-elsewhere": false} {
		err := s.SavePolicy(t.Context(), store.Update, &store.Policy{Ctx: "acme", ID: id, Policy: json.RawMessage(`{"c":3}`)})
		if errors.Is(err, store.ErrConflict) != refused || !refused && err != nil || refused && !strings.Contains(err.Error(), "recall") {
			t.Errorf("policy %s: %v, want a conflict: %t", id, err, refused)
		}
	}
	if err := s.DeleteDefinition(t.Context(), "acme", "in-pilot"); err != nil {
		t.Fatal(err)
	}
	if err := s.SavePolicy(t.Context(), store.Update, &store.Policy{Ctx: "acme", ID: "in-pilot", Policy: policy}); err != nil {
		t.Errorf("a policy that no offer has any more: %v", err)
	}
}

func TestEachRoleReadsItsOwnSchema(t *testing.T) {
	dsn := pgtest.NewDatabase(t)
	owner, err := pgx.Connect(t.Context(), pgtest.Superuser(t, dsn))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.WithoutCancel(t.Context())) }()
	roles := map[string]string{store.SchemaControlPlane: "cp", store.SchemaWallet: "wa", store.SchemaDataPlane: "dp", store.SchemaIssuer: "is"}
	for schema, prefix := range roles {
		roles[schema] = prefix + "_" + owner.Config().Database // roles belong to the server, which the package's tests share
		if _, err := owner.Exec(t.Context(), "CREATE ROLE "+roles[schema]+" LOGIN"); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Migrate(t.Context(), owner.Config(), roles); err != nil {
		t.Fatal(err)
	}
	for schema, role := range roles {
		cc := owner.Config().Copy()
		cc.User = role
		conn, err := pgx.ConnectConfig(t.Context(), cc)
		if err != nil {
			t.Fatal(err)
		}
		for other := range roles {
			_, err := conn.Exec(t.Context(), "SELECT max(version_id) FROM "+other+".goose_db_version")
			if (err == nil) != (other == schema) {
				t.Errorf("role of %s reads %s: %v", schema, other, err)
			}
		}
		if _, err := conn.Exec(t.Context(), "DROP SCHEMA "+schema+" CASCADE"); err == nil {
			t.Errorf("role of %s owns it", schema)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, role := range roles {
		if _, err := owner.Exec(t.Context(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	}
}

// TestNobodyHidesWhatOthersBegan: one counterparty begins more than the list takes, before another begins.
func TestNobodyHidesWhatOthersBegan(t *testing.T) {
	s, _ := open(t, store.Options{})
	var got []string
	for _, n := range []*store.Negotiation{negotiation("a1", "did:web:many"), negotiation("a2", "did:web:many"), negotiation("a3", "did:web:many"), negotiation("b1", "did:web:other")} {
		n.Held = true
		if _, made, err := s.InsertNegotiation(t.Context(), n, store.Side{}); err != nil || !made {
			t.Fatal(made, err)
		}
	}
	held, err := s.Held(t.Context(), "acme", 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range held {
		got = append(got, n.ID)
	}
	if fmt.Sprint(got) != "[a1 b1 a2]" {
		t.Errorf("lists %v", got)
	}
}
