// SPDX-License-Identifier: FSL-1.1-ALv2

package natsauth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
)

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
	if _, err := own.NextMsg(10 * time.Second); err != nil {
		t.Errorf("the own account does not hear it: %v", err)
	}
	if err := inB.FlushTimeout(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if n, _, err := heard.Pending(); err != nil || n != 0 {
		t.Errorf("another account hears it: %d, %v", n, err)
	}
}

func TestAgentMayOnlyDoItsWork(t *testing.T) {
	t.Parallel()
	s := start(t)
	seed := must[[]byte](t)(s.Cell(t.Context(), "a"))
	refused := make(chan error, 8)
	creds := must[[]byte](t)(natsauth.Credentials(seed, "agent", celllink.AgentPermissions))
	nc, err := nats.Connect(s.URL(), nats.UserCredentialBytes(creds), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
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
		case <-time.After(10 * time.Second):
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
