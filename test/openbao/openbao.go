// SPDX-License-Identifier: Apache-2.0

// Package openbao starts a real OpenBao in development mode for tests: in memory, on a free loopback port, gone when the test ends.
// It belongs to tests only. The tests beside it prove connector/vault against it.
package openbao

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaphera/kaphera/test/freeport"
	"github.com/kaphera/kaphera/test/process"
)

// Server is a running OpenBao; its KV version 2 engine is mounted at "secret".
type Server struct {
	Address   string // http://127.0.0.1:<port>
	RootToken string
}

const startTimeout = 3 * time.Minute

// Start starts a server that ends with the test.
func Start(tb testing.TB) *Server {
	tb.Helper()
	binary, err := Binary()
	if err != nil {
		tb.Fatal(err)
	}
	for attempt := 1; ; attempt++ { // a port found free may be taken before the server binds it
		s, err := start(tb, binary)
		if err == nil {
			return s
		}
		if attempt == 5 {
			tb.Fatal(err)
		}
	}
}

func start(tb testing.TB, binary string) (*Server, error) {
	port, err := freeport.Pick()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	s := &Server{Address: "http://" + address, RootToken: rand.Text()}
	var log bytes.Buffer
	cmd := exec.CommandContext(context.Background(), binary, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id="+s.RootToken, "-dev-listen-address="+address) // #nosec G204
	cmd.Env = []string{"HOME=" + tb.TempDir(), "PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = &log, &log
	done, err := process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	deadline := time.After(startTimeout)
	for {
		resp, err := http.Get(s.Address + "/v1/sys/health") //nolint:noctx // bounded by the deadline below
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				tb.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
				return s, nil
			}
		}
		select {
		case <-done:
			return nil, fmt.Errorf("OpenBao ended while starting: %s", log.String())
		case <-deadline:
			_ = cmd.Process.Kill()
			<-done
			return nil, fmt.Errorf("OpenBao did not answer within %s: %s", startTimeout, log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Call makes a request as root and returns the answer's data; any answer but 2xx fails the test.
func (s *Server) Call(tb testing.TB, method, path string, body any) map[string]any {
	tb.Helper()
	raw, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	req, err := http.NewRequestWithContext(tb.Context(), method, s.Address+"/v1/"+path, bytes.NewReader(raw))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", s.RootToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		tb.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, answer, err)
	}
	var out map[string]any
	if len(answer) > 0 {
		if err := json.Unmarshal(answer, &out); err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

// Binary finds the bao program: on PATH, in the project's cache, or inside the cached image, from which it is taken once.
func Binary() (string, error) {
	if path, err := exec.LookPath("bao"); err == nil {
		return path, nil
	}
	cache := os.Getenv("KAPHERA_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(base, "kaphera")
	}
	path := filepath.Join(cache, "bin", "bao")
	if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 { // #nosec G703 -- the developer's own cache
		return path, nil
	}
	images, _ := filepath.Glob(filepath.Join(cache, "images", "openbao", "*.tar"))
	if len(images) == 0 {
		return "", errors.New("no bao on PATH, none in the cache and no cached image of OpenBao: run make test, which prepares it")
	}
	return path, extract(images[len(images)-1], path)
}

// extract copies bin/bao out of a layer of an OCI archive.
func extract(image, path string) error {
	file, err := os.Open(image) // #nosec G304 G703 -- found in the developer's own cache
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	outer := tar.NewReader(file)
	for {
		blob, err := outer.Next()
		if err != nil {
			return fmt.Errorf("no bin/bao in %s: %w", image, err)
		}
		if !strings.HasPrefix(blob.Name, "blobs/") {
			continue
		}
		layer := tar.NewReader(outer)
		for {
			entry, err := layer.Next()
			if err != nil {
				break // the end of a layer, or a blob that is none
			}
			if strings.TrimPrefix(entry.Name, "./") == "bin/bao" {
				return install(layer, path)
			}
		}
	}
}

func install(from io.Reader, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G703 -- the developer's own cache
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "bao")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // #nosec G703 -- the same
	_, err = io.Copy(temporary, from)                  // #nosec G110 -- our own archive
	if err := errors.Join(err, temporary.Chmod(0o755), temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path) // #nosec G703 -- the same
}
