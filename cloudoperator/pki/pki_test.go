// SPDX-License-Identifier: FSL-1.1-ALv2

package pki_test

import (
	"testing"
	"time"

	"github.com/kaphera/kaphera/cloudoperator/pki"
)

var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func authority(t *testing.T) pki.Pair {
	t.Helper()
	ca, err := pki.NewCA("test", start)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestDue(t *testing.T) {
	t.Parallel()
	ca, other := authority(t), authority(t)
	hosts := []string{"postgresql.kaphera-system.svc", "127.0.0.1"}
	leaf, err := ca.Issue(hosts, start)
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		ca    pki.Pair
		leaf  pki.Pair
		hosts []string
		now   time.Time
		want  bool
	}{
		"fresh":                         {ca, leaf, hosts, start, false},
		"in its second third":           {ca, leaf, hosts, start.Add(59 * day), false},
		"in its last third":             {ca, leaf, hosts, start.Add(61 * day), true},
		"expired":                       {ca, leaf, hosts, start.Add(91 * day), true},
		"of another authority":          {other, leaf, hosts, start, true},
		"without a host that it needs":  {ca, leaf, append(hosts, "nats"), start, true},
		"absent":                        {ca, pki.Pair{}, hosts, start, true},
		"with the key of another":       {ca, pki.Pair{Cert: leaf.Cert, Key: other.Key}, hosts, start, true},
		"not PEM":                       {ca, pki.Pair{Cert: []byte("x"), Key: []byte("y")}, hosts, start, true},
		"of an authority that is young": {ca, leaf, hosts, start.Add(-2 * day), true},
	} {
		if got := c.ca.Due(c.leaf, c.hosts, c.now); got != c.want {
			t.Errorf("%s: due %v, want %v", name, got, c.want)
		}
	}
	if pki.CADue(ca, start.Add(5*365*day)) || !pki.CADue(ca, start.Add(8*365*day)) || !pki.CADue(pki.Pair{}, start) {
		t.Error("the authority is due in its last third and when it is absent, not before")
	}
}

func TestPoolTrustsOnlyTheBundle(t *testing.T) {
	t.Parallel()
	if _, err := pki.Pool([]byte("no certificate")); err == nil {
		t.Error("a bundle without a certificate is accepted")
	}
	ca := authority(t)
	pool, err := pki.Pool(ca.Cert)
	if err != nil {
		t.Fatal(err)
	}
	again, err := pki.Pool(ca.Cert)
	if err != nil || !pool.Equal(again) {
		t.Errorf("the same bundle gives another pool: %v", err)
	}
}
