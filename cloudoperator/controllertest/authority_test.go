// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/pki"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// replacesAuthority replaces the internal authority while the cell is called, a pod is connected to its database, and pods connect anew, trusting whom
// the Connector says. No call is lost, no connection ended, and no certificate refused; afterwards the former authority is trusted by nobody.
func replacesAuthority(t *testing.T) {
	background, end := context.WithCancel(context.WithoutCancel(t.Context()))
	var others sync.WaitGroup
	t.Cleanup(func() { end(); others.Wait() })
	every := func(do func()) {
		others.Go(func() {
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for background.Err() == nil {
				do()
				select {
				case <-background.Done():
				case <-tick.C:
				}
			}
		})
	}
	trusted := func(ctx context.Context) (string, error) {
		var c corev1.ConfigMap
		err := admin.Get(ctx, types.NamespacedName{Namespace: system, Name: parts.ConfigCA}, &c)
		return c.Data["ca.crt"], err
	}
	former, err := trusted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	called := calling(t)
	pod := connectAs(t, logins(t)[:1])[0]
	var refused []error
	every(func() { // a pod that connects
		var c edc.Connector
		if admin.Get(background, types.NamespacedName{Namespace: cellNamespace, Name: snapshot.ConnectorName}, &c) != nil {
			return
		}
		tlsConfig, err := pki.ClientTLS([]byte(c.Spec.Database.CABundle), parts.Host(parts.PostgreSQL, system))
		if err != nil {
			refused = append(refused, err)
			return
		}
		cfg, err := pgx.ParseConfig("postgres://" + node.addresses()[parts.PostgreSQL] + "/postgres")
		if err != nil {
			refused = append(refused, err)
			return
		}
		cfg.User, cfg.TLSConfig, cfg.Fallbacks = "nobody", tlsConfig, nil
		var untrusted *tls.CertificateVerificationError
		conn, err := pgx.ConnectConfig(background, cfg)
		if errors.As(err, &untrusted) {
			refused = append(refused, err)
		} else if err == nil {
			_ = conn.Close(background)
		}
	})
	every(func() { // the cluster replaces pods, and renews what is mounted
		for _, name := range []string{parts.Keycloak, parts.Cloud} {
			var d appsv1.Deployment
			if admin.Get(background, types.NamespacedName{Namespace: system, Name: name}, &d) != nil || d.Status.ObservedGeneration == d.Generation {
				continue
			}
			n := ptr.Deref(d.Spec.Replicas, 1)
			d.Status.Replicas, d.Status.ReadyReplicas, d.Status.UpdatedReplicas, d.Status.ObservedGeneration = n, n, n, d.Generation
			_ = admin.Status().Update(background, &d) // tried again
		}
		for _, part := range []string{parts.PostgreSQL, parts.NATS} {
			_ = node.renew(background, part) // tried again
		}
	})

	p := &cloud.Platform{ObjectMeta: named("kaphera")}
	change(t, p, func() {
		metav1.SetMetaDataAnnotation(&p.ObjectMeta, cloud.RotateAuthorityAnnotation, clock.now().UTC().Format(time.RFC3339))
	})
	var both string
	eventually(t, func(ctx context.Context) (err error) {
		if both, err = trusted(ctx); err == nil && (both == former || !strings.HasPrefix(both, former)) {
			err = errors.New("no other authority is trusted beside the former")
		}
		return err
	})
	eventually(t, func(ctx context.Context) error {
		var c edc.Connector
		var agent corev1.ConfigMap
		err := errors.Join(admin.Get(ctx, types.NamespacedName{Namespace: cellNamespace, Name: snapshot.ConnectorName}, &c),
			admin.Get(ctx, types.NamespacedName{Namespace: cellNamespace, Name: parts.Agent}, &agent))
		if err == nil && (c.Spec.Database.CABundle != both || c.Spec.Vault.CABundle != both || agent.Data["ca.crt"] != both) {
			err = errors.New("the cell does not trust both")
		}
		return err
	})
	serves := func(ctx context.Context, part string) (*tls.Certificate, error) {
		var s corev1.Secret
		if err := admin.Get(ctx, types.NamespacedName{Namespace: system, Name: parts.TLSSecret(part)}, &s); err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey])
		return &pair, err
	}
	before, err := serves(t.Context(), parts.OpenBao)
	if err != nil {
		t.Fatal(err)
	}
	waiting := func(why string) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			err := condition(ctx, p, cloud.ConditionAuthority, metav1.ConditionFalse, cloud.ReasonWaiting)
			if err == nil && !strings.Contains(fmt.Sprint(p.Status.Conditions), why) {
				err = fmt.Errorf("%v", p.Status.Conditions)
			}
			return err
		})
	}
	waiting("signs not before")
	clock.forward(16 * time.Minute)

	set := &appsv1.StatefulSet{}
	eventually(t, func(ctx context.Context) error { // OpenBao is started again for its certificate
		now, err := serves(ctx, parts.OpenBao)
		if err == nil && now.Leaf.Equal(before.Leaf) {
			err = errors.New("no certificate of the new authority is made")
		}
		if err == nil {
			err = admin.Get(ctx, types.NamespacedName{Namespace: system, Name: parts.OpenBao}, set)
		}
		if err == nil && set.Status.ObservedGeneration == set.Generation {
			err = errors.New("OpenBao is not started again")
		}
		return err
	})
	node.end(parts.OpenBao)
	if err := node.start(t.Context(), parts.OpenBao); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		if err := condition(ctx, p, cloud.ConditionAuthority, metav1.ConditionTrue, ""); err != nil {
			return err
		}
		now, err := trusted(ctx)
		if err == nil && former+now != both {
			err = errors.New("the new authority is not the only one that is trusted")
		}
		return err
	})
	cell := &cloud.Cell{ObjectMeta: named("shared")}
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionReady, metav1.ConditionTrue, "")
	})
	end()
	others.Wait()
	for _, name := range []string{parts.Keycloak, parts.Cloud} { // nobody runs them in fact
		d := &appsv1.Deployment{ObjectMeta: named(name)}
		eventually(t, func(ctx context.Context) error {
			if err := admin.Get(ctx, client.ObjectKeyFromObject(d), d); err != nil {
				return client.IgnoreNotFound(err)
			}
			d.Status = appsv1.DeploymentStatus{}
			return admin.Status().Update(ctx, d)
		})
	}
	called()
	if len(refused) > 0 {
		t.Errorf("%d connections were refused: %v", len(refused), refused[0])
	}
	if _, err := pod.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the connection of before: %v", err)
	}
	connectAs(t, logins(t))
	server := superuser(t)
	cfg, err := pgx.ParseConfig("postgres://" + server.Address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Fallbacks = nil
	if cfg.TLSConfig, err = pki.ClientTLS([]byte(former), parts.Host(parts.PostgreSQL, system)); err != nil {
		t.Fatal(err)
	}
	var untrusted *tls.CertificateVerificationError
	if conn, err := pgx.ConnectConfig(t.Context(), cfg); !errors.As(err, &untrusted) {
		t.Errorf("with the former authority: %v, %v", conn, err)
	}
	var ca corev1.Secret
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: system, Name: parts.SecretCA}, &ca); err != nil || len(ca.Data) != 3 || !bytes.Equal(ca.Data[corev1.TLSCertKey], []byte(strings.TrimPrefix(both, former))) {
		t.Errorf("the Secret of the authority has %d keys: %v", len(ca.Data), err)
	}
}
