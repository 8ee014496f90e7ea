// SPDX-License-Identifier: FSL-1.1-ALv2

package cell

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaphera/kaphera/cloudoperator/celllink"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/natsauth"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
	"github.com/kaphera/kaphera/connector/audit"
)

// TestEveryReportedHeadIsKept keeps the heads of reports where the cell's agent can neither add nor remove any.
func TestEveryReportedHeadIsKept(t *testing.T) {
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
	cloud, err := s.Connect(seed, celllink.CloudPermissions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	if err := celllink.EnsureStreams(ctx, cloud); err != nil {
		t.Fatal(err)
	}
	head := func(chain, participant string, seq int64) audit.Head {
		return audit.Head{Chain: chain, Ctx: participant, Seq: seq, At: time.Unix(seq, 0).UTC(), Hash: chain + string(rune('0'+seq)), Open: true}
	}
	l, k := NewLinks(parts.Access{}, time.Now), &link{}
	l.m["a"] = k
	for _, heads := range [][]audit.Head{{head("c1", "acme", 1), head("c2", "other", 5)}, {head("c1", "acme", 1), head("c2", "other", 6)}, nil, {head("c1", "acme", 3)}} {
		if err := l.keepHeads(cloud, k, heads); err != nil {
			t.Fatal(err)
		}
	}
	if alarms := l.Alarms("a", time.Time{}); len(alarms) != 0 {
		t.Errorf("%+v", alarms)
	}
	// A chain that goes back is an alarm, also for a cloud operator that has started anew since.
	if err := l.keepHeads(cloud, k, []audit.Head{head("c1", "acme", 2)}); err != nil {
		t.Fatal(err)
	}
	later := &link{}
	if err := cellrpc.ReadHeads(ctx, cloud, "*", later.see); err != nil {
		t.Fatal(err)
	}
	for _, alarms := range [][]audit.Alarm{l.Alarms("a", time.Time{}), later.watch.Alarms(time.Time{})} {
		if len(alarms) != 1 || alarms[0].Ctx != "acme" || time.Since(alarms[0].At) > time.Hour {
			t.Errorf("%+v", alarms)
		}
	}
	creds, err := natsauth.Credentials(seed, "cloud", celllink.CloudPermissions)
	if err != nil {
		t.Fatal(err)
	}
	caller := cellrpc.NewCaller(s.URL(), nil, func(context.Context, string) ([]byte, error) { return creds, nil }, nil)
	t.Cleanup(caller.Close)
	for participant, want := range map[string][]audit.Head{"acme": {head("c1", "acme", 1), head("c1", "acme", 3), head("c1", "acme", 2)}, "other": {head("c2", "other", 5), head("c2", "other", 6)}, "nobody": nil} {
		got, err := caller.Heads(ctx, "a", participant)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", participant, diff)
		}
	}
	js, err := jetstream.New(cloud)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, cellrpc.StreamHeads)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(ctx, 1); err == nil {
		t.Error("a head was deleted")
	}
	if err := stream.Purge(ctx); err == nil {
		t.Error("the heads were purged")
	}
	for _, may := range celllink.AgentPermissions.Publish {
		if may == ">" || may == cellrpc.SubjectHeads+"*" {
			t.Errorf("the agent may publish %s", may)
		}
	}
}
