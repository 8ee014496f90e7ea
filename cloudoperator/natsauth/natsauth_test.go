// SPDX-License-Identifier: FSL-1.1-ALv2

package natsauth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
)

const patience = 2 * time.Minute

func start(t *testing.T) *natstest.Server {
	t.Helper()
	s, err := natstest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func must[T any](t *testing.T) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestAccountsAreApartAndNewOnesNeedNoRestart(t *testing.T) {
	t.Parallel()
	s := start(t)
	a, b := must[[]byte](t)(s.Cell(t.Context(), "a")), must[[]byte](t)(s.Cell(t.Context(), "b"))
	inA, inB := must[*nats.Conn](t)(s.Connect(a, celllink.CloudPermissions)), must[*nats.Conn](t)(s.Connect(b, celllink.CloudPermissions))
	defer inA.Close()
	defer inB.Close()
	heard, err := inB.SubscribeSync("hello")
	if err != nil {
		t.Fatal(err)
	}
	own, err := inA.SubscribeSync("hello")
	if err != nil {
		t.Fatal(err)
	}
	if err := inA.Publish("hello", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := own.NextMsg(patience); err != nil {
		t.Errorf("the own account does not hear it: %v", err)
	}
	if err := inB.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	if n, _, err := heard.Pending(); err != nil || n != 0 {
		t.Errorf("another account hears it: %d, %v", n, err)
	}
}

// Whatever the credentials of a cell are used for, nothing of another cell is read, changed or answered: by subject, by JetStream's API, by the
// system account's subjects. The credentials tried are the widest there are, those with which the cloud enters the cell's account.
func TestACellReachesNothingOfAnother(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), patience) // JetStream's own would be 5 s
	defer cancel()
	s := start(t)
	seedA, seedB := must[[]byte](t)(s.Cell(ctx, "a")), must[[]byte](t)(s.Cell(ctx, "b"))
	a, b := must[*nats.Conn](t)(s.Connect(seedA, celllink.CloudPermissions)), must[*nats.Conn](t)(s.Connect(seedB, celllink.CloudPermissions))
	defer a.Close()
	defer b.Close()
	objects := []*unstructured.Unstructured{{Object: map[string]any{"kind": "Connector", "metadata": map[string]any{"name": "marker-of-b"}}}}
	if _, _, err := celllink.Publish(ctx, b, "b", 0, objects); err != nil {
		t.Fatal(err)
	}
	js := must[jetstream.JetStream](t)(jetstream.New(b))
	must[jetstream.Stream](t)(js.CreateStream(ctx, jetstream.StreamConfig{Name: "OF_B", Subjects: []string{"of.b"}, AllowDirect: true}))
	must[*jetstream.PubAck](t)(js.Publish(ctx, "of.b", []byte("marker-of-b")))
	must[jetstream.Consumer](t)(js.CreateConsumer(ctx, "OF_B", jetstream.ConsumerConfig{Durable: "reader"}))
	accountB := must[string](t)(natsauth.PublicKey(seedB))

	everything := must[*nats.Subscription](t)(a.SubscribeSync(">"))
	if err := a.FlushTimeout(patience); err != nil {
		t.Fatal(err)
	}
	// b's own traffic, on every subject that the two sides use.
	answered := must[*nats.Subscription](t)(b.Subscribe(cellrpc.Subject, func(m *nats.Msg) { _ = m.Respond([]byte("marker-of-b")) }))
	if m, err := b.Request(cellrpc.Subject, nil, patience); err != nil || string(m.Data) != "marker-of-b" {
		t.Fatalf("b does not answer itself: %v", err)
	}
	if err := celllink.SendReport(ctx, b, celllink.Report{Cell: "b", Error: "marker-of-b"}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(answered.Unsubscribe(), b.FlushTimeout(patience), a.FlushTimeout(patience)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := everything.Pending(); err != nil || n != 0 {
		t.Errorf("a hears %d messages of b, %v", n, err)
	}
	if err := everything.Unsubscribe(); err != nil {
		t.Fatal(err)
	}

	for _, subject := range []string{
		"$JS.API.STREAM.INFO.OF_B", "$JS.API.STREAM.MSG.GET.OF_B", "$JS.API.DIRECT.GET.OF_B", "$JS.API.DIRECT.GET.OF_B.of.b", "$JS.API.STREAM.PURGE.OF_B",
		"$JS.API.STREAM.DELETE.OF_B", "$JS.API.STREAM.UPDATE.OF_B", "$JS.API.STREAM.SNAPSHOT.OF_B", "$JS.API.CONSUMER.NAMES.OF_B", "$JS.API.CONSUMER.LIST.OF_B",
		"$JS.API.CONSUMER.INFO.OF_B.reader", "$JS.API.CONSUMER.MSG.NEXT.OF_B.reader", "$JS.API.CONSUMER.DELETE.OF_B.reader", "$JS.API.CONSUMER.CREATE.OF_B",
		"$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.INFO", "$JS.ACK.OF_B.reader.1.1.1.1.0", "$JS." + accountB + ".API.STREAM.LIST",
		"$JS.API.DIRECT.GET." + celllink.StreamDesired + "." + celllink.SubjectSnapshot, "$JS.API.DIRECT.GET." + celllink.StreamReports + "." + celllink.SubjectReport,
		"$JS.API.STREAM.MSG.GET." + celllink.StreamDesired, celllink.SubjectSnapshot, celllink.SubjectReport, "of.b", cellrpc.Subject,
		"$SYS.REQ.ACCOUNT." + accountB + ".INFO", "$SYS.REQ.ACCOUNT." + accountB + ".JSZ", "$SYS.REQ.ACCOUNT." + accountB + ".SUBSZ", "$SYS.REQ.ACCOUNT." + accountB + ".CLAIMS.LOOKUP",
		"$SYS.REQ.CLAIMS.LIST", "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.JSZ", "$SYS.ACCOUNT." + accountB + ".CONNECT",
	} {
		for _, body := range []string{"", `{"seq":1}`, `{"last_by_subj":"of.b"}`, `{"name":"OF_B"}`} {
			m, err := a.Request(subject, []byte(body), patience)
			switch {
			case errors.Is(err, nats.ErrNoResponders):
			case err != nil:
				t.Errorf("%s %s: %v", subject, body, err)
			case strings.Contains(string(m.Data), "marker-of-b") || strings.Contains(string(m.Data), base64.StdEncoding.EncodeToString([]byte("marker-of-b"))) ||
				strings.Contains(string(m.Data), "OF_B\"") || strings.Contains(string(m.Data), accountB):
				t.Errorf("%s %s answers %s", subject, body, m.Data)
			}
		}
	}

	// What is b's is as b left it.
	info := must[jetstream.Stream](t)(js.Stream(ctx, "OF_B")).CachedInfo()
	if info.State.Msgs != 1 || info.State.Consumers != 1 {
		t.Errorf("b's stream has %d messages and %d consumers", info.State.Msgs, info.State.Consumers)
	}
	for stream, subject := range map[string]string{celllink.StreamDesired: celllink.SubjectSnapshot, celllink.StreamReports: celllink.SubjectReport} {
		data, _, err := celllink.Last(ctx, b, stream, subject)
		if err != nil || !strings.Contains(string(data), "marker-of-b") {
			t.Errorf("b's %s is %s, %v", subject, data, err)
		}
	}

	// A user that a's account signs for b's is no user.
	user, signer := must[nkeys.KeyPair](t)(nkeys.CreateUser()), must[nkeys.KeyPair](t)(nkeys.FromSeed(seedA))
	claims := jwt.NewUserClaims(must[string](t)(user.PublicKey()))
	claims.IssuerAccount = accountB
	forged := must[[]byte](t)(jwt.FormatUserConfig(must[string](t)(claims.Encode(signer)), must[[]byte](t)(user.Seed())))
	if nc, err := nats.Connect(s.URL(), nats.UserCredentialBytes(forged)); err == nil {
		nc.Close()
		t.Error("a user signed by another account may enter")
	}
}

func TestAgentMayOnlyDoItsWork(t *testing.T) {
	t.Parallel()
	s := start(t)
	seed := must[[]byte](t)(s.Cell(t.Context(), "a"))
	refused := make(chan error, 8)
	creds := must[[]byte](t)(natsauth.Credentials(seed, "agent", celllink.AgentPermissions))
	nc, err := nats.Connect(s.URL(), nats.UserCredentialBytes(creds), nats.Timeout(patience), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for what, do := range map[string]func() error{
		"publishes a snapshot": func() error { return nc.Publish(celllink.SubjectSnapshot, []byte("forged")) },
		"deletes a stream":     func() error { return nc.Publish("$JS.API.STREAM.DELETE."+celllink.StreamDesired, nil) },
		"hears other reports": func() error {
			_, err := nc.SubscribeSync(celllink.SubjectReport)
			return err
		},
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refused:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("the agent %s: %v", what, err)
			}
		case <-time.After(patience):
			t.Errorf("the agent %s and is not refused", what)
		}
	}
}

func TestDeletedAccountIsOut(t *testing.T) {
	t.Parallel()
	s := start(t)
	seed := must[[]byte](t)(s.Cell(t.Context(), "gone"))
	system := must[*nats.Conn](t)(s.System())
	defer system.Close()
	if err := natsauth.Ping(system); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Operator.Delete(system, seed); err != nil {
			t.Fatal(err)
		}
	}
	if nc, err := s.Connect(seed, celllink.CloudPermissions); err == nil {
		nc.Close()
		t.Error("a user of a deleted account may enter")
	}
}

// A user's key may be somebody else's: only its public half is signed. When it is revoked, who uses it is thrown out and does not come back.
func TestAKeyOfSomebodyElseIsAdmittedAndRevoked(t *testing.T) {
	t.Parallel()
	s := start(t)
	seed, user := must[[]byte](t)(s.Cell(t.Context(), "a")), must[nkeys.KeyPair](t)(nkeys.CreateUser())
	pub, key := must[string](t)(user.PublicKey()), must[[]byte](t)(user.Seed())
	token := must[string](t)(natsauth.UserJWT(seed, "agent", pub, celllink.AgentPermissions))
	stranger := must[string](t)(must[nkeys.KeyPair](t)(nkeys.CreateUser()).PublicKey())
	if !natsauth.Admits(token, seed, pub, celllink.AgentPermissions) || natsauth.Admits(token, seed, stranger, celllink.AgentPermissions) || natsauth.Admits("", seed, pub, celllink.AgentPermissions) {
		t.Error("the JWT is taken for another key's, or not for its own")
	}
	for _, bad := range []string{"", must[string](t)(natsauth.PublicKey(seed)), pub[:len(pub)-1], string(key)} {
		if _, err := natsauth.UserJWT(seed, "agent", bad, celllink.AgentPermissions); err == nil {
			t.Errorf("%.1s… is signed as a user's public key", bad)
		}
	}
	creds := must[[]byte](t)(jwt.FormatUserConfig(token, key))
	closed := make(chan struct{})
	logIn := func(more ...nats.Option) (*nats.Conn, error) {
		return cellrpc.Connect(s.URL(), "test", nil, func() ([]byte, error) { return creds, nil }, append(more, nats.NoReconnect())...)
	}
	nc := must[*nats.Conn](t)(logIn(nats.ClosedHandler(func(*nats.Conn) { close(closed) })))
	defer nc.Close()
	system := must[*nats.Conn](t)(s.System())
	defer system.Close()
	set := func(revoked ...string) {
		t.Helper()
		account := natsauth.Account{Name: "a", Seed: seed, Storage: celllink.Storage, Revoked: revoked}
		if err := natsauth.Push(system, must[string](t)(s.Operator.AccountJWT(account))); err != nil {
			t.Fatal(err)
		}
	}
	set(pub, stranger)
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the connection of a revoked key stays")
	}
	if _, err := logIn(); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a revoked key logs in: %v", err)
	}
	set(stranger)
	must[*nats.Conn](t)(logIn()).Close()
}

func TestCredentialsBelong(t *testing.T) {
	t.Parallel()
	seed, other := must[[]byte](t)(natsauth.NewAccountSeed()), must[[]byte](t)(natsauth.NewAccountSeed())
	p := natsauth.Permissions{Publish: []string{"a", "b"}, Subscribe: []string{"c"}, Respond: true}
	creds := must[[]byte](t)(natsauth.Credentials(seed, "u", p))
	reordered := natsauth.Permissions{Publish: []string{"b", "a"}, Subscribe: []string{"c"}, Respond: true}
	if !natsauth.Belongs(creds, seed, p) || !natsauth.Belongs(creds, seed, reordered) {
		t.Error("credentials do not belong to their own account")
	}
	less := p
	less.Respond = false
	if natsauth.Belongs(creds, other, p) || natsauth.Belongs(creds, seed, natsauth.Permissions{}) || natsauth.Belongs(creds, seed, less) || natsauth.Belongs(nil, seed, p) || natsauth.Belongs(creds, nil, p) {
		t.Error("credentials of something else belong")
	}
}

func TestOperatorKnowsItsJWT(t *testing.T) {
	t.Parallel()
	a, b := must[natsauth.Operator](t)(natsauth.NewOperator()), must[natsauth.Operator](t)(natsauth.NewOperator())
	server := must[natsauth.Server](t)(a.Server())
	if !a.Of(server.OperatorJWT) || b.Of(server.OperatorJWT) || a.Of("") {
		t.Error("an operator's JWT is taken for another's")
	}
}
