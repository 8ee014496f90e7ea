// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kaphera/kaphera/sandbox/cluster"
	"github.com/kaphera/kaphera/sandbox/image"
	"github.com/kaphera/kaphera/sandbox/internal/proc"
	"github.com/kaphera/kaphera/sandbox/stage"
)

// target is the kind of cluster that the demo runs on.
type target interface {
	// build makes what a cluster of this kind is made of.
	build(ctx context.Context, log *stage.Log) error
	// up makes or finds the cluster.
	up(ctx context.Context, log *stage.Log) (access, error)
	// load brings images into the cluster and returns the name that each has
	// there, by its name in the manifests (Built.Ref).
	load(ctx context.Context, log *stage.Log, images []image.Built) (map[string]string, error)
	// down removes the cluster, or says that it stays.
	down(ctx context.Context, log *stage.Log) error
}

// access is how the cluster is reached.
type access struct {
	kubeconfig string
	vpn        string // network namespace from which it is reached; empty: from the machine's
	caFile     string // authority of the gateway's certificates; empty: the system's authorities
}

// newTarget is where the demo runs, and the cluster of a company beside it, if there is one.
func newTarget(o *Options) (target, *sandboxTarget) {
	switch o.Cluster {
	case Kind:
		return kindTarget{o}, nil
	case Existing:
		return existingTarget{o}, nil
	default:
		return sandboxTarget{name: o.Name, domain: o.Domain}, &sandboxTarget{name: o.companyName(), domain: o.companyName() + ".kaphera.test", cloud: o.Name}
	}
}

// sandboxTarget is a cluster made by sandbox/cluster, that of a company where it has a cloud.
type sandboxTarget struct{ name, domain, cloud string }

func (t sandboxTarget) options() cluster.Options {
	return cluster.Options{Name: t.name, Domain: t.domain, Cloud: t.cloud}
}

func (t sandboxTarget) build(ctx context.Context, log *stage.Log) error {
	said := false
	_, err := cluster.Build(ctx, func(line string) { said = true; log.Printf("%s", line) })
	if err == nil && !said {
		log.Cached()
	}
	return err
}

func (t sandboxTarget) up(ctx context.Context, log *stage.Log) (access, error) {
	info, err := cluster.Up(ctx, t.options(), func(line string) { log.Printf("%s", line) })
	return access{kubeconfig: info.Kubeconfig, caFile: info.CAFile, vpn: info.VPN}, err
}

func (t sandboxTarget) load(ctx context.Context, log *stage.Log, images []image.Built) (map[string]string, error) {
	names, archives := map[string]string{}, []string{}
	for _, b := range images {
		names[b.Ref] = b.Content
		archives = append(archives, b.Path)
	}
	skipped := 0
	err := cluster.Load(ctx, t.name, archives, func(line string) {
		log.Printf("%s", line)
		if strings.HasSuffix(line, "is there already") {
			skipped++
		}
	})
	if err == nil && skipped == len(archives) {
		log.Cached()
	}
	return names, err
}

func (t sandboxTarget) down(ctx context.Context, log *stage.Log) error {
	return cluster.Down(ctx, t.name, func(line string) { log.Printf("%s", line) })
}

// kindTarget is a cluster made by kind.
type kindTarget struct{ *Options }

func (t kindTarget) build(ctx context.Context, log *stage.Log) error {
	for _, program := range []string{"kind", "docker"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("CLUSTER=kind needs %s on PATH, which is not there: install it, or use CLUSTER=sandbox, which needs neither", program)
		}
	}
	if _, err := proc.Output(ctx, proc.Cmd{Name: "docker", Args: []string{"info", "--format", "{{.ServerVersion}}"}, Log: log}); err != nil {
		return fmt.Errorf("CLUSTER=kind needs a running docker engine: %w", err)
	}
	return nil
}

func (t kindTarget) up(ctx context.Context, log *stage.Log) (access, error) {
	a := access{kubeconfig: t.path("kind-kubeconfig"), caFile: t.CAFile}
	clusters, err := proc.Output(ctx, proc.Cmd{Name: "kind", Args: []string{"get", "clusters"}, Log: log})
	if err != nil {
		return a, err
	}
	for have := range strings.FieldsSeq(clusters) {
		if have == t.Name {
			log.Cached()
			return a, proc.Run(ctx, proc.Cmd{Name: "kind", Args: []string{"export", "kubeconfig", "--name", t.Name, "--kubeconfig", a.kubeconfig}, Log: log})
		}
	}
	return a, proc.Run(ctx, proc.Cmd{Name: "kind", Args: []string{"create", "cluster", "--name", t.Name, "--kubeconfig", a.kubeconfig, "--wait", "3m"}, Log: log})
}

func (t kindTarget) load(ctx context.Context, log *stage.Log, images []image.Built) (map[string]string, error) {
	names := map[string]string{}
	for _, b := range images {
		names[b.Ref] = b.Content
		log.Printf("%s", b.Content)
		if err := proc.Run(ctx, proc.Cmd{Name: "kind", Args: []string{"load", "image-archive", b.Path, "--name", t.Name}, Log: log}); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func (t kindTarget) down(ctx context.Context, log *stage.Log) error {
	return proc.Run(ctx, proc.Cmd{Name: "kind", Args: []string{"delete", "cluster", "--name", t.Name}, Log: log})
}

// existingTarget is a cluster that somebody else runs.
type existingTarget struct{ *Options }

func (t existingTarget) build(_ context.Context, log *stage.Log) error {
	log.Printf("the cluster of %s is used as it is", t.Kubeconfig)
	_, err := t.repository("connector")
	return err
}

func (t existingTarget) up(context.Context, *stage.Log) (access, error) {
	return access{kubeconfig: t.Kubeconfig, caFile: t.CAFile}, nil
}

// pushLimit bounds the push of one image.
const pushLimit = 10 * time.Minute

func (t existingTarget) load(ctx context.Context, log *stage.Log, images []image.Built) (map[string]string, error) {
	names := map[string]string{}
	for _, b := range images {
		repository, err := t.repository(b.Name)
		if err != nil {
			return nil, err
		}
		tag := repository.Tag(b.Content[strings.LastIndexByte(b.Content, ':')+1:])
		names[b.Ref] = tag.String()
		if err := t.push(ctx, log, tag, b); err != nil {
			return nil, fmt.Errorf("push %s: %w: is REGISTRY=%s reachable, and are you logged in to it?", tag, err, t.Registry)
		}
	}
	return names, nil
}

func (t existingTarget) push(ctx context.Context, log *stage.Log, tag name.Tag, b image.Built) error {
	ctx, cancel := context.WithTimeout(ctx, pushLimit)
	defer cancel()
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if have, err := remote.Head(tag, options...); err == nil && have.Digest.String() == b.Digest {
		log.Printf("%s is there already", tag)
		return nil
	}
	log.Printf("pushing %s (%d MB)", tag, b.Size/1e6)
	return image.WithArchive(b.Path, func(img v1.Image) error { return remote.Write(tag, img, options...) })
}

// repository names an image in the registry; plain HTTP is accepted on this machine only.
func (t existingTarget) repository(imageName string) (name.Repository, error) {
	var options []name.Option
	host, _, _ := strings.Cut(t.Registry, "/")
	if h, _, err := net.SplitHostPort(host); err == nil && (h == "localhost" || net.ParseIP(h).IsLoopback()) {
		options = append(options, name.Insecure)
	}
	r, err := name.NewRepository(strings.TrimSuffix(t.Registry, "/")+"/"+imageName, options...)
	if err != nil {
		return r, fmt.Errorf("REGISTRY=%s: %w", t.Registry, err)
	}
	return r, nil
}

func (t existingTarget) down(_ context.Context, log *stage.Log) error {
	log.Printf("the cluster of %s stays; what the demo installed was removed", t.Kubeconfig)
	return nil
}

// copyFile replaces to by from's content in one step.
func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return replaceFile(to, data, mode)
}

func replaceFile(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return errors.Join(os.Chmod(tmp, mode), os.Rename(tmp, path))
}
