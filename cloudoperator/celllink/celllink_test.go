// SPDX-License-Identifier: FSL-1.1-ALv2

package celllink_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
)

func object(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{"kind": "Connector", "metadata": map[string]any{"name": name}}}
}

func TestSnapshotsAreRevisionedAndNeverGoBack(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // JetStream's own would be 5 s
	defer cancel()
	s, err := natstest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	seed, err := s.Cell(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	nc, err := s.Connect(seed, celllink.CloudPermissions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	for _, step := range []struct {
		what    string
		least   int64
		objects []*unstructured.Unstructured
		want    int64
	}{
		{"the first", 0, []*unstructured.Unstructured{object("x")}, 1},
		{"the same again", 1, []*unstructured.Unstructured{object("x")}, 1},
		{"the same by one who remembers nothing", 0, []*unstructured.Unstructured{object("x")}, 1},
		{"another", 1, []*unstructured.Unstructured{object("y")}, 2},
		{"the first again", 2, []*unstructured.Unstructured{object("x")}, 3},
		{"the same after the stream was lost", 9, []*unstructured.Unstructured{object("x")}, 10},
		{"none", 10, nil, 11},
	} {
		got, hash, err := celllink.Publish(ctx, nc, "a", step.least, step.objects)
		if err != nil || got != step.want {
			t.Fatalf("%s: revision %d, %v; want %d", step.what, got, err, step.want)
		}
		data, at, err := celllink.Last(ctx, nc, celllink.StreamDesired, celllink.SubjectSnapshot)
		if err != nil || at.IsZero() {
			t.Fatalf("%s: %v", step.what, err)
		}
		snap, objects, err := celllink.DecodeSnapshot(data, "a")
		if err != nil || snap.Revision != step.want || snap.Hash != hash || len(objects) != len(step.objects) {
			t.Errorf("%s: reads as %d with %d objects: %v", step.what, snap.Revision, len(objects), err)
		}
	}
}

func TestDecodeSnapshotRefuses(t *testing.T) {
	t.Parallel()
	good := celllink.Snapshot{Cell: "a", Revision: 1, Hash: celllink.HashOf([]byte("[]")), Objects: json.RawMessage("[]")}
	encode := func(change func(*celllink.Snapshot)) []byte {
		s := good
		change(&s)
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	if _, _, err := celllink.DecodeSnapshot(encode(func(*celllink.Snapshot) {}), "a"); err != nil {
		t.Fatalf("a good snapshot: %v", err)
	}
	if _, _, err := celllink.DecodeSnapshot(encode(func(s *celllink.Snapshot) { s.Objects = json.RawMessage(`[{}]`) }), "a"); !errors.Is(err, celllink.ErrDamaged) {
		t.Errorf("changed objects: %v", err)
	}
	for name, data := range map[string][]byte{
		"for another cell": encode(func(s *celllink.Snapshot) { s.Cell = "b" }),
		"no objects":       encode(func(s *celllink.Snapshot) { s.Objects = json.RawMessage(`{}`); s.Hash = celllink.HashOf([]byte(`{}`)) }),
		"no JSON":          []byte("x"),
	} {
		if _, _, err := celllink.DecodeSnapshot(data, "a"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReportIsKept(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // JetStream's own would be 5 s
	defer cancel()
	s, err := natstest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	seed, err := s.Cell(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	agent, err := s.Connect(seed, celllink.AgentPermissions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(agent.Close)
	cloud, err := s.Connect(seed, celllink.CloudPermissions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	if data, _, err := celllink.Last(ctx, cloud, celllink.StreamReports, celllink.SubjectReport); err != nil || data != nil {
		t.Fatalf("before the first report: %q, %v", data, err)
	}
	want := celllink.Report{Cell: "a", At: time.Unix(1, 0).UTC(), AppliedRevision: 7, Objects: []celllink.Object{{Kind: "Connector", Name: "connector"}}}
	if err := celllink.SendReport(ctx, agent, want); err != nil {
		t.Fatal(err)
	}
	data, _, err := celllink.Last(ctx, cloud, celllink.StreamReports, celllink.SubjectReport)
	if err != nil {
		t.Fatal(err)
	}
	var got celllink.Report
	if err := json.Unmarshal(data, &got); err != nil || got.AppliedRevision != 7 || got.Find("Connector", "connector") == nil || got.Find("Connector", "other") != nil {
		t.Errorf("report is %s: %v", data, err)
	}
	var none *celllink.Report
	if none.Find("Connector", "connector") != nil {
		t.Error("no report has an object")
	}
}
