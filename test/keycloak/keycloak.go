// SPDX-License-Identifier: Apache-2.0

// Package keycloak starts a real Keycloak for tests, with a PostgreSQL of its own, by TLS on a free loopback port, gone when the test ends. The
// distribution is that of the platform's image; it runs on the machine's Java. It belongs to tests only.
package keycloak

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaphera/kaphera/connector/store/pgtest"
	"github.com/kaphera/kaphera/test/freeport"
	"github.com/kaphera/kaphera/test/process"
)

// Server is a running Keycloak.
type Server struct {
	URL      string // https://localhost:<port>
	client   *http.Client
	admin    string // secret of client admin of the realm master
	token    string
	tokenEnd time.Time
}

const startTimeout = 8 * time.Minute

// Start starts a server that ends with the test. The certificate, PEM, is for localhost and signed by ca.
func Start(tb testing.TB, ca, certificate, key []byte) *Server {
	tb.Helper()
	dist, err := distribution()
	if err != nil {
		tb.Fatal(err)
	}
	db, err := pgtest.Start()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(db.Stop)
	dir := tb.TempDir()
	err = errors.Join(os.WriteFile(filepath.Join(dir, "tls.crt"), certificate, 0o600), os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600))
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	s := &Server{admin: rand.Text(), client: &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}}
	for attempt := 1; ; attempt++ { // a port found free may be taken before the server binds it
		err := s.start(tb, dist, dir, db)
		if err == nil {
			return s
		}
		if attempt == 3 {
			tb.Fatal(err)
		}
	}
}

func (s *Server) start(tb testing.TB, dist, dir string, db *pgtest.Server) error {
	port, err := freeport.Pick()
	if err != nil {
		return err
	}
	management, err := freeport.Pick()
	if err != nil {
		return err
	}
	s.URL = fmt.Sprintf("https://localhost:%d", port)
	var log bytes.Buffer
	args := []string{"-Xms96m", "-Xmx320m", "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory"}
	for _, p := range []string{"java.util", "java.util.concurrent", "java.security", "java.lang"} {
		args = append(args, "--add-opens=java.base/"+p+"=ALL-UNNAMED")
	}
	args = append(args, "-Dkc.home.dir="+dist, "-Djboss.server.config.dir="+filepath.Join(dist, "conf"), "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
		"-cp", filepath.Join(dist, "lib", "quarkus-run.jar"), "io.quarkus.bootstrap.runner.QuarkusEntryPoint", "start", "--optimized",
		"--db-url="+fmt.Sprintf("jdbc:postgresql://127.0.0.1:%d/postgres", db.Port), "--db-username=postgres", "--db-password=none",
		"--http-host=127.0.0.1", fmt.Sprintf("--https-port=%d", port), fmt.Sprintf("--http-management-port=%d", management), "--hostname="+s.URL, "--cache=local",
		"--https-certificate-file="+filepath.Join(dir, "tls.crt"), "--https-certificate-key-file="+filepath.Join(dir, "tls.key"),
		"--bootstrap-admin-client-id=admin", "--bootstrap-admin-client-secret="+s.admin)
	// Not by its script, which would leave Java behind when it is killed.
	cmd := exec.CommandContext(context.Background(), "java", args...) // #nosec G204 -- what is made above
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = &log, &log
	done, err := process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("start Keycloak: %w", err)
	}
	deadline := time.After(startTimeout)
	for {
		resp, err := s.client.Get(s.URL + "/realms/master") //nolint:noctx // bounded by the deadline below
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				tb.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
				return nil
			}
		}
		select {
		case <-done:
			return fmt.Errorf("the Keycloak of the test ended while starting: %s", log.String())
		case <-deadline:
			_ = cmd.Process.Kill()
			<-done
			return fmt.Errorf("the Keycloak of the test did not answer within %s: %s", startTimeout, log.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Token logs in: grant has grant_type and what it needs. It returns the access token, or the answer's error.
func (s *Server) Token(tb testing.TB, realm string, grant url.Values) (string, error) {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, s.URL+"/realms/"+realm+"/protocol/openid-connect/token", strings.NewReader(grant.Encode()))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := s.send(req, &answer); err != nil {
		return "", err
	}
	return answer.AccessToken, nil
}

// Call makes a request to the admin API as the server's administrator, path being below /admin/realms, and decodes the answer into out. Any answer but 2xx
// fails the test.
func (s *Server) Call(tb testing.TB, method, path string, in, out any) {
	tb.Helper()
	if time.Now().After(s.tokenEnd) {
		token, err := s.Token(tb, "master", url.Values{"grant_type": {"client_credentials"}, "client_id": {"admin"}, "client_secret": {s.admin}})
		if err != nil {
			tb.Fatal(err)
		}
		s.token, s.tokenEnd = token, time.Now().Add(20*time.Second)
	}
	raw, err := json.Marshal(in)
	if err != nil {
		tb.Fatal(err)
	}
	req, err := http.NewRequestWithContext(tb.Context(), method, s.URL+"/admin/realms"+path, bytes.NewReader(raw))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	if err := s.send(req, out); err != nil {
		tb.Fatal(err)
	}
}

func (s *Server) send(req *http.Request, out any) error {
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %d %s", req.Method, req.URL.Path, resp.StatusCode, answer)
	}
	if out == nil || len(answer) == 0 {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// distribution is the folder opt/keycloak of the cached image, taken out of it once.
func distribution() (string, error) {
	cache := os.Getenv("KAPHERA_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(base, "kaphera")
	}
	images, _ := filepath.Glob(filepath.Join(cache, "images", "keycloak", "*.tar"))
	if len(images) == 0 {
		return "", errors.New("no cached image of Keycloak: run make test, which prepares it")
	}
	image := images[len(images)-1]
	dir := filepath.Join(cache, "keycloak", strings.TrimSuffix(filepath.Base(image), ".tar"))
	if _, err := os.Stat(dir); err == nil { // #nosec G703 -- the developer's own cache
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { // #nosec G301 G703 -- the same
		return "", err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(temporary) }() // #nosec G703 -- the same
	if err := extract(image, temporary); err != nil {
		return "", err
	}
	if err := os.Rename(temporary, dir); err != nil { // #nosec G703 -- the same
		if _, other := os.Stat(dir); other == nil { // another test was faster
			return dir, nil
		}
		return "", err
	}
	return dir, nil
}

// extract copies what is below opt/keycloak in the layers of an OCI archive.
func extract(image, dir string) error {
	file, err := os.Open(image) // #nosec G304 G703 -- found in the developer's own cache
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	outer := tar.NewReader(file)
	for found := false; ; {
		blob, err := outer.Next()
		if errors.Is(err, io.EOF) && found {
			return nil
		}
		if err != nil {
			return fmt.Errorf("no opt/keycloak in %s: %w", image, err)
		}
		if !strings.HasPrefix(blob.Name, "blobs/") {
			continue
		}
		layer := tar.NewReader(outer)
		for first := true; ; first = false {
			entry, err := layer.Next()
			if errors.Is(err, io.EOF) || err != nil && first {
				break // the end of a layer, or a blob that is none
			}
			if err != nil {
				return fmt.Errorf("layer %s of %s: %w", blob.Name, image, err)
			}
			name, ok := strings.CutPrefix(strings.TrimPrefix(entry.Name, "./"), "opt/keycloak/")
			if !ok || entry.Typeflag != tar.TypeReg {
				continue
			}
			found = true
			if err := write(root, name, entry.FileInfo().Mode(), layer); err != nil {
				return err
			}
		}
	}
}

func write(root *os.Root, name string, mode os.FileMode, from io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	to, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from) // #nosec G110 -- our own archive
	return errors.Join(err, to.Close())
}
