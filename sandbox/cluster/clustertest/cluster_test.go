// SPDX-License-Identifier: Apache-2.0

// Package clustertest makes real clusters on this machine and looks at them
// from outside, as their users do. It needs root.
package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/sandbox/cluster"
)

// TestMain also serves as the agent of the clusters that the tests make: Up
// starts its own program for that.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == cluster.AgentCommand {
		if err := cluster.Agent(context.Background(), os.Args[2:], slog.Default()); err != nil {
			slog.Error("agent ended", "error", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == holdCommand {
		hold(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// newName begins as the runner of the tests wants it, so that it finds what a killed test leaves.
func newName() string {
	prefix := os.Getenv("KAPHERA_TEST_CLUSTERS")
	if prefix == "" {
		prefix = "t-"
	}
	return fmt.Sprintf("%s%06x", prefix, rand.N(1<<24))
}

func TestClusterFromUpToDown(t *testing.T) {
	name := newName()
	f := up(t, cluster.Options{Name: name})
	image := probeImage(t)
	must(t, cluster.Load(t.Context(), name, []string{image}, report(t)))
	f.deploy(t)

	t.Run("the host reaches a Service by name over TLS", func(t *testing.T) {
		got := f.eventually(t, "https://probe."+f.info.Domain+"/some/path", http.StatusOK, "message=hello")
		wantContains(t, got, "host=probe."+f.info.Domain, "path=/some/path", "forwarded=https probe."+f.info.Domain)
	})
	t.Run("a pod reaches it by the same name", func(t *testing.T) {
		wantContains(t, f.inPod(t, "/fetch?url=https://probe."+f.info.Domain+"/from-pod", http.StatusOK), "path=/from-pod", "message=hello")
	})
	t.Run("a host name that nobody signed for is not trusted", func(t *testing.T) {
		resp, err := http.Get("https://probe." + f.info.Domain + "/")
		if err == nil {
			_ = resp.Body.Close()
			t.Fatal("a client without the sandbox's authority connected")
		}
		wantContains(t, err.Error(), "certificate")
	})
	t.Run("plain HTTP is sent to HTTPS", func(t *testing.T) {
		resp := f.get(t, "http://probe."+f.info.Domain+"/a?b=c", http.StatusPermanentRedirect)
		if got, want := resp.header.Get("Location"), "https://probe."+f.info.Domain+"/a?b=c"; got != want {
			t.Errorf("Location = %q, want %q", got, want)
		}
	})
	t.Run("what cannot be served says why", func(t *testing.T) {
		wantContains(t, f.get(t, "https://"+f.info.Domain+"/nothing", http.StatusNotFound).body, "no Ingress", "/nothing", f.info.Domain)
		wantContains(t, f.eventually(t, "https://probe."+f.info.Domain+"/absent", http.StatusServiceUnavailable, "does not exist"), f.namespace+"/absent")
		wantContains(t, f.eventually(t, "https://probe."+f.info.Domain+"/deaf", http.StatusBadGateway, "refused"), f.namespace+"/deaf")
	})
	t.Run("an event stream passes at once", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://probe."+f.info.Domain+"/events", nil)
		must(t, err)
		resp, err := f.http.Do(req)
		must(t, err)
		defer func() { _ = resp.Body.Close() }()
		first := make([]byte, len("data: first\n\n"))
		if _, err := io.ReadFull(resp.Body, first); err != nil {
			t.Fatalf("the first event did not arrive while the stream was open: %v", err)
		}
	})
	t.Run("names resolve in pods", func(t *testing.T) {
		service := f.service(t, "probe")
		wantContains(t, f.inPod(t, "/resolve?name=probe."+f.namespace+".svc.cluster.local", http.StatusOK), service)
		wantContains(t, f.inPod(t, "/resolve?name=anything."+f.info.Domain, http.StatusOK), f.info.Node)
		f.inPod(t, "/resolve?name=nowhere.example", http.StatusNotFound)
	})
	t.Run("the authority is published in the cluster", func(t *testing.T) {
		cm, err := f.client.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(t.Context(), "sandbox-ca", metav1.GetOptions{})
		must(t, err)
		ca, err := os.ReadFile(f.info.CAFile)
		must(t, err)
		if cm.Data["ca.crt"] != string(ca) {
			t.Error("ConfigMap sandbox-ca and the CA file differ")
		}
	})
	t.Run("a service account's token is reviewed for its audience", f.tokenReview)
	t.Run("an image that is there is not loaded again", func(t *testing.T) {
		var lines bytes.Buffer
		must(t, cluster.Load(t.Context(), name, []string{image}, func(line string) { lines.WriteString(line) }))
		wantContains(t, lines.String(), "there already")
	})
	t.Run("a claim's data outlives its pod", func(t *testing.T) {
		f.put(t, "https://probe."+f.info.Domain+"/file?name=/data/kept", "as it was")
		f.restartPod(t)
		f.eventually(t, "https://probe."+f.info.Domain+"/file?name=/data/kept", http.StatusOK, "as it was")
	})
	t.Run("a network policy lets through whom it names", f.networkPolicy)
	t.Run("up again changes nothing", func(t *testing.T) {
		before := f.pids(t)
		f.up(t)
		if after := f.pids(t); before != after {
			t.Errorf("processes changed:\n%s\nwere\n%s", after, before)
		}
	})
	t.Run("a component that ends is started again", func(t *testing.T) {
		before := f.pids(t)
		killMatching(t, f.dir, "kube-scheduler")
		waitFor(t, "the scheduler to be back", func() error {
			if f.pids(t) == before {
				return errors.New("no process was started")
			}
			return f.running(t)
		})
	})
	t.Run("up repairs a cluster of which everything was killed", func(t *testing.T) {
		killEverything(t, f)
		f.up(t)
		f.eventually(t, "https://probe."+f.info.Domain+"/file?name=/data/kept", http.StatusOK, "as it was")
	})
	t.Run("up repairs a cluster after the machine was started again", func(t *testing.T) {
		killEverything(t, f)
		must(t, exec.CommandContext(t.Context(), "ip", "netns", "del", "kaphera-"+name).Run())
		f.up(t)
		f.eventually(t, "https://probe."+f.info.Domain+"/file?name=/data/kept", http.StatusOK, "as it was")
	})
	t.Run("a company's cluster stands behind its firewall", f.company)
	t.Run("a claim's data goes with the claim", f.reclaim)
	t.Run("down leaves nothing, also after a crash", func(t *testing.T) {
		killEverything(t, f)
		must(t, cluster.Down(t.Context(), name, report(t)))
		nothingLeft(t, f)
		must(t, cluster.Down(t.Context(), name, report(t)))
	})
}

// An up that is interrupted at any of its stages is finished by the next one.
func TestUpInterruptedIsFinishedByTheNext(t *testing.T) {
	name := newName()
	t.Cleanup(func() {
		if err := cluster.Down(context.Background(), name, report(t)); err != nil {
			t.Error(err)
		}
	})
	for stage := 1; ; stage++ {
		ctx, interrupt := context.WithCancel(t.Context())
		lines := 0
		_, err := cluster.Up(ctx, cluster.Options{Name: name}, func(line string) {
			t.Logf("stage %d: %s", stage, line)
			if lines++; lines == stage {
				interrupt()
			}
		})
		interrupt()
		if err == nil {
			break // fewer stages are left than were let through
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted at stage %d: %v", stage, err)
		}
	}
	f := up(t, cluster.Options{Name: name})
	must(t, f.running(t))
	must(t, os.Remove(f.dir+"/run/kube-scheduler.json")) // a crash right after its start
	f.up(t)
	schedulers := 0
	for _, line := range processesOf(t, f) {
		if strings.Contains(line, " kube-scheduler ") {
			schedulers++
		}
	}
	if schedulers != 1 {
		t.Errorf("%d schedulers run", schedulers)
	}
	release := holdPort(t, f, "443")
	_, err := cluster.Up(t.Context(), cluster.Options{Name: name}, report(t))
	if err == nil {
		t.Fatal("up succeeded although the gateway's port is taken")
	}
	wantContains(t, err.Error(), "agent ended", f.info.Node+":443", "address already in use", "what to do")
	release()
	f.up(t)
	must(t, f.running(t))
}

func TestUpRefusesAnotherDomainForTheSameCluster(t *testing.T) {
	t.Setenv(cluster.StateEnv, t.TempDir())
	must(t, os.MkdirAll(os.Getenv(cluster.StateEnv)+"/known", 0o755))
	must(t, os.WriteFile(os.Getenv(cluster.StateEnv)+"/known/cluster.json", []byte(`{"name":"known","domain":"one.test","slot":240}`), 0o600))
	_, err := cluster.Up(t.Context(), cluster.Options{Name: "known", Domain: "two.test"}, report(t))
	if err == nil {
		t.Fatal("up took a second domain")
	}
	wantContains(t, err.Error(), "one.test", "two.test", "sandbox down known")
}

func wantContains(t *testing.T, got string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in:\n%s", want, got)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func report(t *testing.T) cluster.Report { return func(line string) { t.Log(line) } }
