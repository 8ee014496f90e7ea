// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// oneMore adds participants, KAPHERA_PARTICIPANTS in all (`make bench`: 1001), and logs how long one more takes, from being written to being active in its
// cell, over how many there are. It demands that each comes and goes, and no time.
func oneMore(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("KAPHERA_PARTICIPANTS"))
	if err != nil {
		n = sample
	}
	var curve strings.Builder
	var first time.Duration
	made := 0
	for _, at := range []int{sample, 100, 300, 1001} {
		if at > n {
			break
		}
		var crowd errgroup.Group
		crowd.SetLimit(16)
		for ; made < at-sample; made++ {
			i := made
			crowd.Go(func() error { return takesPart(t.Context(), i) })
		}
		if err := crowd.Wait(); err != nil {
			t.Fatal(err)
		}
		var took []time.Duration
		for ; made < at; made++ {
			start := time.Now()
			if err := takesPart(t.Context(), made); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		median := took[len(took)/2]
		first = cmp.Or(first, median)
		fmt.Fprintf(&curve, "\n%5d participants: one more takes %8s, %.2f times the first ones (medians of %d)", at, median.Round(time.Millisecond), float64(median)/float64(first), sample)
	}
	t.Log(curve.String())
	for i := range made {
		if err := admin.Delete(t.Context(), &cloud.Participant{ObjectMeta: named(many(i))}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range made {
		eventually(t, func(ctx context.Context) error { return absent(ctx, &cloud.Participant{ObjectMeta: named(many(i))}) })
	}
}

// sample is of how many the median is taken.
const sample = 7

func many(i int) string { return fmt.Sprintf("many-%04d", i) }

// takesPart adds a participant and plays its connector, until it is active.
func takesPart(ctx context.Context, i int) error {
	name, pc := many(i), &edc.ParticipantContext{}
	key := types.NamespacedName{Namespace: "cell-shared", Name: name}
	didDocs.publish("shared.demo.example", name)
	if err := admin.Create(ctx, &cloud.Participant{ObjectMeta: named(name), Spec: cloud.ParticipantSpec{
		Organization: "supplier", Identity: cloud.Identity{Context: name, BusinessPartnerNumber: fmt.Sprintf("BPNL%012d", 1000+i)}, Cell: "shared", Profile: "auto",
		Credentials: []edc.HolderCredential{{Type: "MembershipCredential", Claims: &apiextensionsv1.JSON{Raw: []byte(`{"memberOf":"auto"}`)}}},
	}}); err != nil {
		return err
	}
	if err := until(ctx, func(ctx context.Context) error { return admin.Get(ctx, key, pc) }); err != nil {
		return err
	}
	if err := until(ctx, func(ctx context.Context) error {
		return admin.Status().Patch(ctx, pc, client.RawPatch(types.MergePatchType, []byte(`{"status":{
			"credentials":[{"type":"MembershipCredential","issuer":"did:web:authority.demo.example:issuer","state":"Valid"}],
			"conditions":[{"type":"Ready","status":"True","reason":"Ready","message":"ok","lastTransitionTime":"2026-01-01T00:00:00Z"},
			{"type":"Active","status":"True","reason":"Active","message":"active","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`)))
	}); err != nil {
		return err
	}
	return until(ctx, func(ctx context.Context) error {
		err := admin.Get(ctx, key, pc)
		if err == nil && !pc.Spec.Active {
			err = errors.New(name + " is not active")
		}
		return err
	})
}
