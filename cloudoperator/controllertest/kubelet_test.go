// SPDX-License-Identifier: FSL-1.1-ALv2

package controllertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/cloudoperator/controller/parts"
	"github.com/kaphera/kaphera/cloudoperator/natsauth/natstest"
	"github.com/kaphera/kaphera/test/freeport"
	"github.com/kaphera/kaphera/test/openbao"
)

// kubelet runs the containers of the platform's StatefulSets on this machine: with their own commands, configuration and Secrets, but
// other paths and free loopback ports.
type kubelet struct {
	dir   string
	ports map[string]int
	cmds  map[string]*exec.Cmd // by StatefulSet
	nats  *server.Server
	user  *syscall.Credential // nil when this process is not root
}

func newKubelet() (*kubelet, error) {
	dir, err := os.MkdirTemp("", "kaphera-kubelet-")
	if err != nil {
		return nil, err
	}
	k := &kubelet{dir: dir, ports: map[string]int{}, cmds: map[string]*exec.Cmd{}}
	for _, p := range []string{parts.PostgreSQL, parts.OpenBao, "openbao-cluster", parts.NATS} {
		if k.ports[p], err = freeport.Pick(); err != nil {
			return nil, err
		}
	}
	if os.Geteuid() != 0 {
		return k, nil
	}
	// PostgreSQL refuses to run as root; "nobody" is on every machine.
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	k.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return k, errors.Join(err1, err2, os.Chmod(dir, 0o755)) // #nosec G302 -- the user reads what is his below it
}

func (k *kubelet) addresses() map[string]string {
	out := map[string]string{}
	for p, port := range k.ports {
		out[p] = "127.0.0.1:" + strconv.Itoa(port)
	}
	return out
}

func (k *kubelet) stop() {
	for name := range k.cmds {
		k.end(name)
	}
	if k.nats != nil {
		k.nats.Shutdown()
	}
	_ = os.RemoveAll(k.dir)
}

// end ends the program of a StatefulSet.
func (k *kubelet) end(name string) {
	_ = k.cmds[name].Process.Signal(syscall.SIGINT)
	_ = k.cmds[name].Wait()
	delete(k.cmds, name)
}

// renew mounts the certificate of a part as it is now, as a kubelet does after a while.
func (k *kubelet) renew(ctx context.Context, part string) error {
	var s corev1.Secret
	if err := admin.Get(ctx, types.NamespacedName{Namespace: system, Name: parts.TLSSecret(part)}, &s); err != nil {
		return err
	}
	var errs []error
	for _, file := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		path := filepath.Join(k.dir, part, "tls", file)
		if found, err := os.ReadFile(path); err != nil || !bytes.Equal(found, s.Data[file]) { // #nosec G304 -- the test's own folder
			errs = append(errs, k.write(path, s.Data[file]))
		}
	}
	return errors.Join(errs...)
}

// files writes the Secret and ConfigMap volumes of a pod below the kubelet's folder and returns how to rewrite paths of the container.
func (k *kubelet) files(ctx context.Context, set *appsv1.StatefulSet) ([]string, error) {
	base := filepath.Join(k.dir, set.Name)
	spec := set.Spec.Template.Spec
	var rewrite []string
	for _, v := range spec.Volumes {
		data := map[string][]byte{}
		switch {
		case v.Secret != nil:
			var s corev1.Secret
			if err := admin.Get(ctx, types.NamespacedName{Namespace: system, Name: v.Secret.SecretName}, &s); err != nil {
				return nil, err
			}
			data = s.Data
		case v.ConfigMap != nil:
			var c corev1.ConfigMap
			if err := admin.Get(ctx, types.NamespacedName{Namespace: system, Name: v.ConfigMap.Name}, &c); err != nil {
				return nil, err
			}
			for n, text := range c.Data {
				data[n] = []byte(text)
			}
		}
		for n, content := range data {
			if err := k.write(filepath.Join(base, v.Name, n), content); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range spec.Containers[0].VolumeMounts {
		if m.SubPath == "" && m.Name != "tmp" && m.Name != "run" {
			rewrite = append(rewrite, m.MountPath+"/", filepath.Join(base, m.Name)+"/")
		}
	}
	// What the configuration files themselves say.
	return rewrite, k.own(filepath.Join(base, "data"))
}

func (k *kubelet) own(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if k.user == nil {
		return nil
	}
	return os.Chown(dir, int(k.user.Uid), int(k.user.Gid))
}

func (k *kubelet) write(path string, content []byte) error {
	if err := k.own(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Dir(filepath.Dir(path)), 0o755); err != nil { // #nosec G302 -- see newKubelet
		return err
	}
	if err := os.WriteFile(path, content, 0o600); err != nil { // #nosec G703 -- below the test's own folder
		return err
	}
	if k.user == nil {
		return nil
	}
	return os.Chown(path, int(k.user.Uid), int(k.user.Gid))
}

// rewriteFile replaces text in a file of a volume.
func (k *kubelet) rewriteFile(path string, oldnew ...string) error {
	raw, err := os.ReadFile(path) // #nosec G304 -- below the test's own folder
	if err != nil {
		return err
	}
	return k.write(path, []byte(strings.NewReplacer(oldnew...).Replace(string(raw))))
}

// run starts a container's program as a process.
func (k *kubelet) run(set *appsv1.StatefulSet, program string, args, env []string) error {
	out, err := os.Create(filepath.Join(k.dir, set.Name+".log")) // #nosec G304 -- the test's own folder
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), program, args...) // #nosec G204 -- what the operator describes
	cmd.Env, cmd.Stdout, cmd.Stderr = append(env, "PATH="+os.Getenv("PATH"), "HOME="+k.dir), out, out
	cmd.Dir, cmd.SysProcAttr = k.dir, &syscall.SysProcAttr{Credential: k.user}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", set.Name, err)
	}
	k.cmds[set.Name] = cmd
	return nil
}

// start runs the pod of a StatefulSet once the operator has made it, and reports it ready.
func (k *kubelet) start(ctx context.Context, name string) error {
	set := &appsv1.StatefulSet{}
	key := types.NamespacedName{Namespace: system, Name: name}
	if err := until(ctx, func(ctx context.Context) error {
		err := admin.Get(ctx, key, set)
		if err == nil {
			return nil
		}
		var p cloud.Platform
		getErr := admin.Get(ctx, types.NamespacedName{Namespace: system, Name: "kaphera"}, &p)
		return errors.Join(err, getErr, fmt.Errorf("the platform: %+v", p.Status.Conditions))
	}); err != nil {
		return err
	}
	rewrite, err := k.files(ctx, set)
	if err != nil {
		return err
	}
	c := set.Spec.Template.Spec.Containers[0]
	port := strconv.Itoa(k.ports[name])
	switch name {
	case parts.PostgreSQL:
		rewrite = append(rewrite, "unix_socket_directories=/run", "unix_socket_directories="+filepath.Join(k.dir, name, "data"), "port=5432", "port="+port)
		var env []string
		for _, e := range c.Env {
			env = append(env, e.Name+"="+strings.NewReplacer(rewrite...).Replace(e.Value))
		}
		err = k.run(set, c.Command[0], rewritten(c.Args, rewrite), env)
	case parts.OpenBao:
		err = k.openbao(ctx, set, rewrite)
	case parts.NATS:
		if err := k.rewriteFile(k.natsConfig(), append(rewrite, "0.0.0.0:4222", "127.0.0.1:"+port, "0.0.0.0:8222", "127.0.0.1:-1", "0.0.0.0:8080", "127.0.0.1:-1", `min_version: "1.2"`, "min_version: \"1.2\"\n  timeout: 120")...); err != nil {
			return err
		}
		err = k.startNATS()
	}
	if err != nil {
		return err
	}
	// The pod is ready when its port answers.
	if err := until(ctx, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(k.dir, name+".log"))
			return fmt.Errorf("%s: %w: %s", name, err, log)
		}
		return conn.Close()
	}); err != nil {
		return err
	}
	return until(ctx, func(ctx context.Context) error {
		if err := admin.Get(ctx, key, set); err != nil {
			return err
		}
		set.Status.Replicas, set.Status.ReadyReplicas, set.Status.UpdatedReplicas, set.Status.ObservedGeneration = 1, 1, 1, set.Generation
		return admin.Status().Update(ctx, set)
	})
}

func (k *kubelet) natsConfig() string { return filepath.Join(k.dir, parts.NATS, "config", "nats.conf") }

func (k *kubelet) startNATS() (err error) {
	k.nats, err = natstest.Run(k.natsConfig())
	return err
}

// openbao points the Kubernetes auth method at the test's API server, which in a pod it finds by itself.
func (k *kubelet) openbao(ctx context.Context, set *appsv1.StatefulSet, rewrite []string) error {
	reviewer, err := serviceAccountToken(ctx, system, parts.OpenBao)
	if err != nil {
		return err
	}
	binary, err := openbao.Binary()
	if err != nil {
		return err
	}
	const inPod = `{ kubernetes_host = "https://kubernetes.default.svc" }`
	here := fmt.Sprintf("{ kubernetes_host = %q, kubernetes_ca_cert = %q, token_reviewer_jwt = %q, disable_local_ca_jwt = true }", adminTo.Host, adminTo.CAData, reviewer)
	cluster := "127.0.0.1:" + strconv.Itoa(k.ports["openbao-cluster"])
	file := filepath.Join(k.dir, set.Name, "config", "config.hcl")
	err = k.rewriteFile(file, append(rewrite, inPod, here, "[::]:8200", "127.0.0.1:"+strconv.Itoa(k.ports[parts.OpenBao]), "[::]:8201", cluster,
		parts.Host(parts.OpenBao, system)+":8201", cluster)...)
	if err != nil {
		return err
	}
	if err := k.own(filepath.Join(k.dir, "bin")); err != nil {
		return err
	}
	// The cache may be where the user cannot read.
	program := filepath.Join(k.dir, "bin", "bao")
	if err := os.Link(binary, program); err != nil && !errors.Is(err, os.ErrExist) {
		raw, err := os.ReadFile(binary) // #nosec G304 -- the program found
		if err != nil {
			return err
		}
		if err := os.WriteFile(program, raw, 0o755); err != nil { // #nosec G306 -- a program
			return err
		}
	}
	return k.run(set, program, rewritten(set.Spec.Template.Spec.Containers[0].Args, rewrite), nil)
}

func rewritten(args, oldnew []string) []string {
	var out []string
	for _, a := range args {
		out = append(out, strings.NewReplacer(oldnew...).Replace(a))
	}
	return out
}
