// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/zip"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
)

const (
	keycloakVersion = "26.7.3"
	keycloakSum     = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
	keycloakHome    = "opt/keycloak"
	mavenDependency = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
)

// keycloakBuild is what the server is optimised for; a start with other
// build-time options would be refused.
var keycloakBuild = []string{"build", "--db=postgres", "--health-enabled=true", "--metrics-enabled=true"}

// Keycloak is the server's distribution from Maven Central with a headless
// Java runtime from Debian, built ahead of time for PostgreSQL with health and
// metrics. It writes below /opt/keycloak/data and /tmp only.
func Keycloak() Recipe {
	roots := append([]string{"openjdk-17-jre-headless", "ca-certificates"}, shellTools...)
	prune := []string{"ca-certificates-java", "java-common", "libcups2", "libfontconfig1", "libnss3", "libasound2", "libfreetype6", "libharfbuzz0b", "libpcsclite1", "openssl"}
	none := func(string) bool { return false }
	base := debian("keycloak", "26", roots, prune, none, finishKeycloak)
	prepare := base.prepare
	base.prepare = func(ctx context.Context, log io.Writer) (string, func(*rootfs, string) (packing, error), error) {
		inputs, fill, err := prepare(ctx, log)
		return strings.Join(append([]string{keycloakSum, inputs}, keycloakBuild...), "\n"), fill, err
	}
	return base
}

func finishKeycloak(ctx context.Context, log io.Writer, r *rootfs, work string) (packing, error) {
	java := "/usr/lib/jvm/java-17-openjdk-" + runtime.GOARCH
	args := []string{
		"-B", "-q", mavenDependency + ":copy", "-DoutputDirectory=" + work,
		"-Dartifact=org.keycloak:keycloak-quarkus-dist:" + keycloakVersion + ":zip",
	}
	if err := proc.Run(ctx, proc.Cmd{Name: "mvn", Args: args, Dir: work, Log: log}); err != nil {
		return packing{}, fmt.Errorf("download keycloak: %w", err)
	}
	dist := filepath.Join(work, "keycloak-quarkus-dist-"+keycloakVersion+".zip")
	if err := checkSum(dist, keycloakSum); err != nil {
		return packing{}, err
	}
	err := errors.Join(
		r.users("keycloak", "/"+keycloakHome),
		r.root.Symlink(java+"/bin/java", "usr/bin/java"),
		r.unzip(dist, keycloakHome),
		r.javaTrust(),
	)
	if err != nil {
		return packing{}, err
	}
	if err := r.inside(ctx, log, java, append([]string{"/" + keycloakHome + "/bin/kc.sh"}, keycloakBuild...)); err != nil {
		return packing{}, fmt.Errorf("optimise keycloak: %w", err)
	}
	return packing{
		config: v1.Config{
			User: fmt.Sprintf("%d:%d", serviceUser, serviceUser), WorkingDir: "/" + keycloakHome,
			Env:        []string{"PATH=/usr/bin:/bin", "JAVA_HOME=" + java, "LANG=C.UTF-8", "KC_RUN_IN_CONTAINER=true"},
			Entrypoint: []string{"/" + keycloakHome + "/bin/kc.sh"},
		},
		own: map[string]int{keycloakHome + "/data": serviceUser},
	}, r.root.MkdirAll(keycloakHome+"/data", 0o755)
}

// unzip unpacks a zip file whose entries are below one folder into dest.
func (r *rootfs) unzip(path, dest string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer func() { _ = z.Close() }()
	for _, f := range z.File {
		_, inner, _ := strings.Cut(f.Name, "/")
		if inner == "" || strings.HasSuffix(inner, "/") || strings.HasSuffix(inner, ".bat") {
			continue
		}
		content, err := f.Open()
		if err != nil {
			return err
		}
		if err := errors.Join(r.file(dest+"/"+inner, f.Mode().Perm()|0o444, content), content.Close()); err != nil {
			return err
		}
	}
	return nil
}

// javaTrust makes the Java trust store that the runtime links to, from the
// roots in Debian's ca-certificates, without a password, as newer JDKs ship it.
func (r *rootfs) javaTrust() error {
	files, err := filepath.Glob(filepath.Join(r.dir, "usr/share/ca-certificates/mozilla/*.crt"))
	if err != nil {
		return err
	}
	var roots []*x509.Certificate
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(data)
		if block == nil {
			return fmt.Errorf("%s holds no certificate", filepath.Base(f))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue // a root that this Go version rejects is no loss to a trust store
		}
		roots = append(roots, cert)
	}
	if len(roots) == 0 {
		return errors.New("the package ca-certificates holds no root certificate")
	}
	store, err := pkcs12.Passwordless.EncodeTrustStore(roots, "")
	if err != nil {
		return err
	}
	return r.file("etc/ssl/certs/java/cacerts", 0o644, strings.NewReader(string(store)))
}

// inside runs a command in the root folder with /dev and /proc mounted, in a
// mount namespace of its own, so that no mount outlives it.
func (r *rootfs) inside(ctx context.Context, log io.Writer, java string, command []string) error {
	if os.Geteuid() != 0 {
		return errors.New("this step changes its root folder, which needs root: run it with sudo")
	}
	const script = `set -e
root=$1; java=$2; shift 2
mkdir -p "$root/dev" "$root/proc"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME=/tmp JAVA_HOME="$java" "$@"`
	args := append([]string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", r.dir, java}, command...)
	if err := proc.Run(ctx, proc.Cmd{Name: "unshare", Args: args, Log: log}); err != nil {
		return err
	}
	return errors.Join(os.Remove(filepath.Join(r.dir, "dev")), os.Remove(filepath.Join(r.dir, "proc")))
}
