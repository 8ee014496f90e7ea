// SPDX-License-Identifier: FSL-1.1-ALv2

package console

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"
)

// LogOuts is the ConfigMap by which replicas tell each other who has logged out: until when an access token of the session may count (RFC 3339), by the
// hash of the session's id. After that a session is renewed, which fails, since its refresh token was revoked. The Cloud operator makes it.
const LogOuts = "kaphera-console-log-outs"

const (
	logOutsTimeout = 3 * time.Second
	clockSkew      = time.Minute // between replicas
)

func logOutKey(session string) string {
	sum := sha256.Sum256([]byte(session))
	return hex.EncodeToString(sum[:])
}

func (s *console) logOuts(ctx context.Context) (*corev1.ConfigMap, error) {
	var m corev1.ConfigMap
	if err := s.Service.Client.Get(ctx, ctrl.ObjectKey{Namespace: s.Service.Namespace, Name: LogOuts}, &m); err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", LogOuts, err)
	}
	return &m, nil
}

// tellLogOut tells the other replicas, and drops what nobody needs to know any more.
func (s *console) tellLogOut(ctx context.Context, sess session) error {
	ctx, cancel := context.WithTimeout(ctx, logOutsTimeout)
	defer cancel()
	m, err := s.logOuts(ctx)
	if err != nil {
		return err
	}
	before := m.DeepCopy()
	maps.DeleteFunc(m.Data, func(_, until string) bool {
		at, err := time.Parse(time.RFC3339, until)
		return err != nil || s.Now().After(at)
	})
	if m.Data == nil {
		m.Data = map[string]string{}
	}
	life := sess.Expires.Sub(sess.At) // a copy of the cookie may have been renewed after this one
	m.Data[logOutKey(sess.ID)] = s.Now().Add(life + clockSkew).UTC().Format(time.RFC3339)
	return s.Service.Client.Patch(ctx, m, ctrl.MergeFrom(before))
}

// loggedOut reports whether somebody has logged out of a session, through whichever replica.
func (s *console) loggedOut(ctx context.Context, id string) bool {
	if s.ended.has(id) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, logOutsTimeout)
	defer cancel()
	m, err := s.logOuts(ctx)
	if err != nil { // without the Kubernetes API the console goes on with what it knows
		s.Log.WarnContext(ctx, "who has logged out elsewhere is not known", "error", err)
		return false
	}
	return m.Data[logOutKey(id)] != ""
}
