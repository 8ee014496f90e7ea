// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/kube"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/pki"
)

// announced is for how long the next authority is trusted before it signs: kubelets renew what is mounted within two minutes, and pods are replaced one by one.
const announced = 15 * time.Minute

// authority makes the internal certificate authority and publishes whom to trust. When it is in the last third of its life, or somebody asks for it, another
// one takes over in three steps: it is trusted beside the present one; it signs, and every part gets a certificate of it; the former one is trusted no more.
func (r *run) authority(ctx context.Context) error {
	s := r.access.Secret(parts.SecretCA)
	err := r.access.Reader.Get(ctx, client.ObjectKeyFromObject(s), s)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read secret %s: %w", parts.SecretCA, err)
	}
	present := pki.Pair{Cert: s.Data[corev1.TLSCertKey], Key: s.Data[corev1.TLSPrivateKeyKey]}
	next := pki.Pair{Cert: s.Data[parts.KeyNextCert], Key: s.Data[parts.KeyNextKey]}
	former := s.Data[parts.KeyFormerCert]
	answered, request := string(s.Data[parts.KeyRotation]), requested(r.platform)
	_, ends, err := pki.Life(present)
	state := kube.Condition{Type: cloud.ConditionAuthority, Reason: cloud.ReasonWaiting}
	var waits string
	switch {
	case err != nil || r.Now().After(ends): // whatever it signed is of no use
		next, former = pki.Pair{}, nil
		answered = request
		present, err = r.newAuthority()
	case len(former) > 0:
		if waits = r.signedBy(ctx, present); waits == "" {
			former = nil
		}
	case len(next.Cert) > 0:
		if waits, err = r.trusted(ctx, next); waits == "" && err == nil {
			former, present, next = present.Cert, next, pki.Pair{}
			waits = "it signs from now on"
		}
	case pki.CADue(present, r.Now()) || request != "" && request != answered:
		answered = request
		next, err = r.newAuthority()
		waits = "it was just made, and is trusted from now on"
	}
	if err != nil {
		return err
	}
	data := map[string][]byte{corev1.TLSCertKey: present.Cert, corev1.TLSPrivateKeyKey: present.Key}
	for key, value := range map[string][]byte{parts.KeyNextCert: next.Cert, parts.KeyNextKey: next.Key, parts.KeyFormerCert: former, parts.KeyRotation: []byte(answered)} {
		if len(value) > 0 {
			data[key] = value
		}
	}
	if kube.Digest(data) != kube.Digest(s.Data) {
		s = r.access.Secret(parts.SecretCA)
		s.Type, s.Data = corev1.SecretTypeTLS, data
		if err := kube.Apply(ctx, r.client, nil, s); err != nil {
			return err
		}
	}
	r.expires(parts.SecretCA, present)
	state.Message = "another authority takes over: " + waits
	if waits == "" {
		_, ends, _ := pki.Life(present) // which was just read, or made
		state.OK, state.Reason, state.Message = true, cloud.ReasonReady, "one authority is trusted, until "+ends.UTC().Format(time.DateOnly)
	}
	kube.Set(&r.platform.Status.Conditions, r.platform.Generation, state)
	return r.apply(ctx, r.configMap(parts.ConfigCA, map[string]string{"ca.crt": string(parts.Trusted(data))}))
}

func (r *run) newAuthority() (pki.Pair, error) {
	return pki.NewCA("Kaphera internal authority of "+r.platform.Spec.Domain, r.Now())
}

// requested is the newest request for another authority; one is answered by what is made when it is first seen, whatever clock it was made by.
func requested(p *cloud.Platform) string {
	at := p.Annotations[cloud.RotateAuthorityAnnotation]
	if _, err := time.Parse(time.RFC3339, at); err != nil {
		return ""
	}
	return at
}

// trusted says what is to be waited for until everybody trusts the next authority. What was there before this operator is taken for new: the one before
// may not have come to tell everybody.
func (r *run) trusted(ctx context.Context, next pki.Pair) (waits string, err error) {
	seen := r.announcements.get(r.key())
	if digest := kube.Digest(next.Cert); seen.digest != digest {
		seen = memoEntry{digest, r.Now()}
		r.announcements.set(r.key(), seen)
	}
	if from := seen.at.Add(announced); r.Now().Before(from) {
		return "it is trusted, and signs not before " + from.UTC().Format(time.RFC3339), nil
	}
	for _, name := range []string{parts.Keycloak, parts.Cloud} {
		if r.exists(ctx, name) {
			if err := r.running(ctx, name, false); err != nil {
				return err.Error(), nil //nolint:nilerr // it is what is waited for
			}
		}
	}
	var cells cloud.CellList
	if err := r.client.List(ctx, &cells, client.InNamespace(r.platform.Namespace)); err != nil {
		return "", fmt.Errorf("list the cells: %w", err)
	}
	var behind []string
	for _, c := range cells.Items {
		if c.Spec.Type != cloud.OnPremise && !apimeta.IsStatusConditionTrue(c.Status.Conditions, cloud.ConditionReady) {
			behind = append(behind, "cell "+c.Name+" is not ready")
		}
	}
	var profiles cloud.DataspaceProfileList
	if err := r.client.List(ctx, &profiles, client.InNamespace(r.platform.Namespace)); err != nil {
		return "", fmt.Errorf("list the dataspace profiles: %w", err)
	}
	for _, p := range profiles.Items { // whose issuers run in cells
		if len(p.Spec.Issuers) > 0 && !apimeta.IsStatusConditionTrue(p.Status.Conditions, cloud.ConditionReady) {
			behind = append(behind, "dataspace profile "+p.Name+" is not ready, whose issuers are in cells")
		}
	}
	return strings.Join(behind, "; "), nil
}

// signedBy says which part does not serve a certificate of the authority yet.
func (r *run) signedBy(ctx context.Context, authority pki.Pair) (waits string) {
	var behind []string
	for _, part := range []string{parts.PostgreSQL, parts.OpenBao, parts.NATS} {
		if _, external := parts.External(r.platform, part); external {
			continue
		}
		leaf, err := r.access.Serves(ctx, r.platform, part)
		switch {
		case err != nil:
			behind = append(behind, fmt.Sprintf("what %s serves is not known: %v", part, err))
		case !authority.Signed(leaf):
			behind = append(behind, part+" does not serve a certificate of the present one yet")
		}
	}
	if r.exists(ctx, parts.Keycloak) {
		if err := r.running(ctx, parts.Keycloak, false); err != nil {
			behind = append(behind, err.Error())
		}
	}
	return strings.Join(behind, "; ")
}

// reload lets a part read its certificate again until it serves the one that it has: a kubelet takes its time to renew what is mounted.
func (r *run) reload(ctx context.Context, part string, again func(context.Context) error) error {
	cert, err := r.certificate(ctx, part)
	if err != nil {
		return err
	}
	leaf, err := r.access.Serves(ctx, r.platform, part)
	if err != nil || pki.Is(cert, leaf) {
		return err
	}
	return again(ctx)
}

// reloadable makes the certificate of a part that reload works on. restart changes when the part must be started again nevertheless: nobody who trusts what
// is right can tell it to reload when what it serves is not.
func (r *run) reloadable(ctx context.Context, part string) (restart string, err error) {
	const annotation = "cloud.kaphera.io/restart-for"
	cert, err := r.certificate(ctx, part)
	if err != nil {
		return "", err
	}
	s := r.access.Secret(parts.TLSSecret(part))
	if err := r.access.Reader.Get(ctx, client.ObjectKeyFromObject(s), s); err != nil {
		return "", fmt.Errorf("read secret %s: %w", s.Name, err)
	}
	_, err = r.access.Serves(ctx, r.platform, part)
	var untrusted *tls.CertificateVerificationError
	if mark := kube.Digest(cert.Cert); errors.As(err, &untrusted) && s.Annotations[annotation] != mark {
		before := s.DeepCopy()
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, annotation, mark)
		if err := r.client.Patch(ctx, s, client.MergeFrom(before)); err != nil {
			return "", fmt.Errorf("write secret %s: %w", s.Name, err)
		}
	}
	return s.Annotations[annotation], nil
}

// certificate returns the server certificate of a part, renewed when it is due.
func (r *run) certificate(ctx context.Context, part string) (pki.Pair, error) {
	var ca corev1.Secret
	if err := r.access.Reader.Get(ctx, client.ObjectKey{Namespace: r.platform.Namespace, Name: parts.SecretCA}, &ca); err != nil {
		return pki.Pair{}, fmt.Errorf("read secret %s: %w", parts.SecretCA, err)
	}
	authority := pki.Pair{Cert: ca.Data[corev1.TLSCertKey], Key: ca.Data[corev1.TLSPrivateKeyKey]}
	s := r.access.Secret(parts.TLSSecret(part))
	err := r.access.Reader.Get(ctx, client.ObjectKeyFromObject(s), s)
	if client.IgnoreNotFound(err) != nil {
		return pki.Pair{}, fmt.Errorf("read secret %s: %w", s.Name, err)
	}
	host := parts.Host(part, r.platform.Namespace)
	hosts := []string{host, part, part + "." + r.platform.Namespace, host + ".cluster.local", "localhost", "127.0.0.1"}
	pair := pki.Pair{Cert: s.Data[corev1.TLSCertKey], Key: s.Data[corev1.TLSPrivateKeyKey]}
	if !authority.Due(pair, hosts, r.Now()) {
		r.expires(s.Name, pair)
		return pair, nil
	}
	if pair, err = authority.Issue(hosts, r.Now()); err != nil {
		return pki.Pair{}, fmt.Errorf("certificate of %s: %w", part, err)
	}
	s = r.access.Secret(parts.TLSSecret(part))
	s.Type = corev1.SecretTypeTLS
	s.Data = map[string][]byte{corev1.TLSCertKey: pair.Cert, corev1.TLSPrivateKeyKey: pair.Key}
	if err := kube.Apply(ctx, r.client, nil, s); err != nil {
		return pair, err
	}
	r.expires(s.Name, pair)
	return pair, nil
}

func (r *run) expires(secret string, p pki.Pair) {
	if _, ends, err := pki.Life(p); err == nil {
		r.expiry.WithLabelValues(secret).Set(float64(ends.Unix()))
	}
}
