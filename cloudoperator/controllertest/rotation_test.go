// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/cellrpc"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/manifest"
	"github.com/kaphera/kaphera/cloudoperator/postgres"
	"github.com/kaphera/kaphera/cloudoperator/snapshot"
)

// logins are those of the runtimes' roles in the cell shared, in the order of their Secrets.
func logins(t *testing.T) (out []*pgx.ConnConfig) {
	t.Helper()
	s := superuser(t)
	for runtime, resources := range map[string]snapshot.Resources{
		snapshot.ConnectorName: snapshot.ConnectorResources("shared"), "authority": snapshot.IssuerResources("shared", "authority"),
	} {
		for role := range resources.Roles {
			var secret corev1.Secret
			if err := admin.Get(t.Context(), client.ObjectKey{Namespace: cellNamespace, Name: snapshot.DatabaseSecret(runtime, role)}, &secret); err != nil {
				t.Fatal(err)
			}
			cfg, err := pgx.ParseConfig("postgres://" + s.Address)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Database, cfg.TLSConfig, cfg.Fallbacks = resources.Database, s.TLS, nil
			cfg.User, cfg.Password = string(secret.Data[parts.KeyUsername]), string(secret.Data[parts.KeyPassword])
			out = append(out, cfg)
		}
	}
	slices.SortFunc(out, func(a, b *pgx.ConnConfig) int { return strings.Compare(a.User, b.User) })
	return out
}

// connectAs opens connections as pods have them.
func connectAs(t *testing.T, logins []*pgx.ConnConfig) (out []*pgx.Conn) {
	t.Helper()
	for _, l := range logins {
		conn, err := pgx.ConnectConfig(t.Context(), l)
		if err != nil {
			t.Fatalf("log-in %s: %v", l.User, err)
		}
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) }) // what is closed already stays so
		out = append(out, conn)
	}
	return out
}

func mountedFile(t *testing.T, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mounted")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// slowKubelet keeps what is mounted as it is.
var slowKubelet atomic.Bool

// mounted keeps files as the agent's credentials in a Secret, and whom it trusts in a ConfigMap, are, until ctx ends, as a kubelet does.
func mounted(ctx context.Context, credentials, authorities client.ObjectKey, file, caFile string) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	write := func(file string, content []byte) {
		if err := os.WriteFile(file+".new", content, 0o600); err == nil {
			_ = os.Rename(file+".new", file) // tried again
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var s corev1.Secret
		if !slowKubelet.Load() && admin.Get(ctx, credentials, &s) == nil {
			write(file, s.Data[manifest.CredentialsKey])
		}
		var c corev1.ConfigMap
		if admin.Get(ctx, authorities, &c) == nil {
			write(caFile, []byte(c.Data["ca.crt"]))
		}
	}
}

// calling calls the cell all the time until done, which says what was lost.
func calling(t *testing.T) (done func()) {
	t.Helper()
	caller := cloudCaller(t)
	var calls int
	var lost []error
	agentsEnded := leasesLost.Load()
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			resp, err := caller.Call(t.Context(), "shared", cellrpc.Request{Participant: "supplier", Method: "POST", Path: "/assets"})
			switch {
			case errors.Is(err, context.DeadlineExceeded): // a machine that is too busy to answer in time
			case err != nil:
				lost = append(lost, err)
			case resp.Status != http.StatusOK:
				lost = append(lost, fmt.Errorf("%d %s", resp.Status, resp.Body))
			default:
				calls++
			}
		}
	})
	done = sync.OnceFunc(func() {
		close(stop)
		traffic.Wait()
		caller.Close()
		if leasesLost.Load() > agentsEnded { // on a machine that is too busy the agent has ended meanwhile, and been started again
			lost = nil
		}
		if len(lost) > 0 || calls == 0 {
			t.Errorf("%d calls were answered, %d lost: %v", calls, len(lost), slices.CompactFunc(lost, func(a, b error) bool { return a.Error() == b.Error() }))
		}
	})
	t.Cleanup(done)
	return done
}

// rotates replaces the credentials of the cell while it is called all the time: no call is lost, and the former credentials are out once they are not used.
func rotates(t *testing.T) {
	cell := &cloud.Cell{ObjectMeta: named("shared")}
	agents := func() []byte {
		t.Helper()
		var s corev1.Secret
		eventually(t, func(ctx context.Context) error {
			return admin.Get(ctx, client.ObjectKey{Namespace: cellNamespace, Name: manifest.AgentCredentials}, &s)
		})
		return s.Data[manifest.CredentialsKey]
	}
	clouds := func() []byte {
		t.Helper()
		var s corev1.Secret
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: system, Name: parts.SecretCellCreds}, &s); err != nil {
			t.Fatal(err)
		}
		return s.Data[cellrpc.CredentialsKey("shared")]
	}
	rotate := func(annotations ...string) {
		t.Helper()
		change(t, cell, func() {
			requested := time.Now().UTC().Format(time.RFC3339Nano)
			for _, a := range append(annotations, cloud.RotateAnnotation) {
				metav1.SetMetaDataAnnotation(&cell.ObjectMeta, a, requested)
			}
		})
	}
	rotated := func(status metav1.ConditionStatus) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			if err := condition(ctx, cell, cloud.ConditionRotated, status, ""); err != nil {
				return err
			}
			if requested := cell.Annotations[cloud.RotateAnnotation]; (cell.Status.RotatedFor == requested) != (status == metav1.ConditionTrue) {
				return fmt.Errorf("requested %s, rotated for %s", requested, cell.Status.RotatedFor)
			}
			return nil
		})
	}
	opens := func(creds []byte) error {
		nc, err := logIn(t, creds)
		if err == nil {
			nc.Close()
		}
		return err
	}
	shut := func(what string, creds []byte) {
		t.Helper()
		eventually(t, func(context.Context) error {
			if err := opens(creds); !errors.Is(err, nats.ErrAuthorization) {
				return fmt.Errorf("%s: %w", what, errors.Join(errors.New("the former credentials are not refused"), err))
			}
			return nil
		})
	}

	called := calling(t)
	formerAgent, formerCloud := agents(), clouds()
	for _, creds := range [][]byte{formerAgent, formerCloud} {
		if err := opens(creds); err != nil {
			t.Fatal(err)
		}
	}
	passing := time.Now()
	minutesPass := func() {
		if time.Since(passing) > 5*time.Second {
			clock.forward(time.Minute)
			passing = time.Now()
		}
	}
	replaced := func(former []*pgx.ConnConfig) error {
		for i, l := range logins(t) {
			if l.User == former[i].User || l.Password == former[i].Password {
				return fmt.Errorf("%s is not replaced", l.User)
			}
		}
		return nil
	}
	waits := func(why string) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			err := condition(ctx, cell, cloud.ConditionRotated, metav1.ConditionFalse, cloud.ReasonWaiting)
			if m := message(cell, cloud.ConditionRotated); err == nil && !strings.Contains(m, why) {
				err = errors.New(m)
			}
			return err
		})
	}
	closed := func(pods []*pgx.Conn) {
		t.Helper()
		for _, conn := range pods {
			if err := conn.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	refused := func(logins []*pgx.ConnConfig) error {
		for _, l := range logins {
			conn, err := pgx.ConnectConfig(t.Context(), l)
			if err == nil {
				_ = conn.Close(t.Context())
			}
			if !postgres.Refused(err) {
				return fmt.Errorf("the former log-in %s: %w", l.User, errors.Join(errors.New("is not refused"), err))
			}
		}
		return nil
	}
	former := logins(t)
	pods := connectAs(t, former)
	rotate()
	eventually(t, func(context.Context) error { return replaced(former) })
	waits("until no pod has used them")
	closed(connectAs(t, former)) // of a pod that is started again before it is replaced

	// One that is asked for meanwhile begins when that one has ended, and is not done before.
	between := logins(t)
	rotate()
	waits("once the rotation before this one has ended")
	closed(pods)
	pods = connectAs(t, between)
	eventually(t, func(ctx context.Context) error {
		minutesPass()
		err := replaced(between)
		if getErr := admin.Get(ctx, client.ObjectKeyFromObject(cell), cell); err == nil || getErr != nil {
			return getErr
		}
		if cell.Status.RotatedFor == cell.Annotations[cloud.RotateAnnotation] {
			t.Fatalf("the rotation is said to be done: %v", err)
		}
		return err
	})
	connectAs(t, logins(t))
	closed(pods)
	eventually(t, func(ctx context.Context) error {
		minutesPass()
		return condition(ctx, cell, cloud.ConditionRotated, metav1.ConditionTrue, "")
	})
	rotated(metav1.ConditionTrue)
	if err := errors.Join(refused(former), refused(between)); err != nil {
		t.Error(err)
	}
	if now := agents(); bytes.Equal(now, formerAgent) || bytes.Equal(clouds(), formerCloud) {
		t.Error("the credentials are the former ones")
	}
	shut("the agent's", formerAgent)
	shut("the cloud's", formerCloud)
	putBack := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: cellNamespace, Name: manifest.AgentCredentials}}
	change(t, putBack, func() { putBack.Data[manifest.CredentialsKey] = formerAgent })
	eventually(t, func(context.Context) error {
		if now := agents(); bytes.Equal(now, formerAgent) {
			return errors.New("credentials that were revoked are in use")
		}
		return nil
	})
	called()

	// A Secret that somebody deletes.
	formerAgent = agents()
	if err := admin.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: cellNamespace, Name: manifest.AgentCredentials}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(context.Context) error {
		if bytes.Equal(agents(), formerAgent) {
			return errors.New("no other credentials are made")
		}
		return nil
	})
	shut("after the Secret was deleted", formerAgent)

	// An agent that does not have the new ones yet is not cut off, unless somebody says so. Then it is the same with pods, those that still have what was
	// replaced by the rotation before included, and whether the message server answers or not.
	formerAgent, former = agents(), logins(t)
	pods = connectAs(t, former)
	slowKubelet.Store(true)
	t.Cleanup(func() { slowKubelet.Store(false) })
	clock.forward(20 * time.Minute) // however old the credentials are
	rotate()
	eventually(t, func(context.Context) error { return replaced(former) })
	rotated(metav1.ConditionFalse)
	if err := opens(formerAgent); err != nil {
		t.Errorf("the credentials that the agent still uses: %v", err)
	}
	between = logins(t)
	pods = append(pods, connectAs(t, between)...)
	// What could not be replaced is not taken away.
	database := snapshot.ConnectorResources("shared").Database
	server := superuser(t)
	cfg, err := pgx.ParseConfig("postgres://" + server.Address)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User, cfg.Password, cfg.TLSConfig, cfg.Fallbacks = server.User, server.Password, server.TLS, nil
	comment := func(text string) {
		t.Helper()
		conn, err := pgx.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "COMMENT ON DATABASE "+database+" IS "+text); err != nil {
			t.Error(err)
		}
		_ = conn.Close(t.Context())
	}
	comment("'Kaphera platform another'")
	rotate(cloud.RevokeNowAnnotation)
	waits("not known: database " + database)
	var stay, ended []*pgx.ConnConfig
	for _, l := range between {
		if l.Database == database {
			stay = append(stay, l)
		} else {
			ended = append(ended, l)
		}
	}
	eventually(t, func(context.Context) error { return refused(ended) })
	connectAs(t, stay)
	node.nats.Shutdown()
	node.nats.WaitForShutdown()
	comment("NULL")
	rotate(cloud.RevokeNowAnnotation)
	eventually(t, func(context.Context) error { return errors.Join(refused(former), refused(between)) })
	for _, conn := range pods {
		if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
			t.Errorf("a connection by %s goes on", conn.Config().User)
		}
	}
	rotated(metav1.ConditionFalse)
	if err := node.startNATS(); err != nil {
		t.Fatal(err)
	}
	rotated(metav1.ConditionTrue)
	shut("revoked at once", formerAgent)
	slowKubelet.Store(false)
	eventually(t, func(ctx context.Context) error {
		return condition(ctx, cell, cloud.ConditionReady, metav1.ConditionTrue, "")
	})
}
