// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
	"github.com/kaphera/kaphera/sandbox/stage"
	"github.com/kaphera/kaphera/sandbox/tool"
)

const (
	providerVersion = "0.1.0"
	providerAddress = "kaphera.dev/kaphera/kaphera"
)

// workspace is the pilot, relative to the repository's root.
const workspace = "terraform/pilot"

// buildCommands builds what people run on their own machine: the CLI and the provider.
func (d *demo) buildCommands(ctx context.Context, log *stage.Log) error {
	mirror := d.path("providers", providerAddress, providerVersion, runtime.GOOS+"_"+runtime.GOARCH)
	builds := map[string]string{
		d.path("bin", "kaphera"): "./cmd/kaphera",
		filepath.Join(mirror, "terraform-provider-kaphera_v"+providerVersion): "./cmd/terraform-provider-kaphera",
	}
	for out, pkg := range builds {
		log.Printf("%s", pkg)
		err := proc.Run(ctx, proc.Cmd{
			Name: "go", Args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg},
			Dir: d.root, Env: []string{"CGO_ENABLED=0"}, Log: log,
		})
		if err != nil {
			return fmt.Errorf("build %s: %w", pkg, err)
		}
	}
	rc := fmt.Sprintf(`# The kaphera provider comes from a folder, as it would for anybody without a registry; all others as usual.
provider_installation {
  filesystem_mirror {
    path    = %q
    include = ["kaphera.dev/*/*"]
  }
  direct {
    exclude = ["kaphera.dev/*/*"]
  }
}
`, d.path("providers"))
	return replaceFile(d.path("terraformrc"), []byte(rc), 0o644)
}

func (d *demo) getTofu(ctx context.Context, log *stage.Log) error {
	found, err := tool.Get(ctx, tool.OpenTofu, log)
	if err != nil {
		return err
	}
	if found.Cached {
		log.Cached()
	}
	log.Printf("%s", found.Path)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tofu = found.Path
	return nil
}

// applyWorkspace applies the pilot.
func (d *demo) applyWorkspace(ctx context.Context, log *stage.Log) error {
	if err := d.writeVariables(time.Now()); err != nil {
		return err
	}
	// The lock file pins the hash of the last build of the provider.
	if err := os.Remove(filepath.Join(d.root, workspace, ".terraform.lock.hcl")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log.Printf("init")
	if err := d.runTofu(ctx, log, "init", "-input=false", "-no-color"); err != nil {
		return err
	}
	log.Printf("apply")
	return d.runTofu(ctx, log, "apply", "-input=false", "-no-color", "-auto-approve", "-state="+d.path("pilot.tfstate"), "-var-file="+d.path("pilot.tfvars"))
}

func (d *demo) destroyWorkspace(ctx context.Context, log *stage.Log) error {
	if _, err := os.Stat(d.path("pilot.tfstate")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.getTofu(ctx, log); err != nil {
		return err
	}
	return d.runTofu(ctx, log, "destroy", "-input=false", "-no-color", "-auto-approve", "-state="+d.path("pilot.tfstate"), "-var-file="+d.path("pilot.tfvars"))
}

// workspaceLimit bounds one command on the workspace.
const workspaceLimit = 10 * time.Minute

func (d *demo) runTofu(ctx context.Context, log *stage.Log, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, workspaceLimit)
	defer cancel()
	env, err := d.savedEnvironment()
	if err != nil {
		return err
	}
	err = proc.Run(ctx, proc.Cmd{Name: d.tofu, Args: args, Dir: filepath.Join(d.root, workspace), Env: append(env, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1"), Log: log})
	if err != nil {
		return fmt.Errorf("%s %s in %s: %w", filepath.Base(d.tofu), args[0], workspace, err)
	}
	return nil
}

// savedEnvironment is the environment that the platform stage left in the demo's folder.
func (d *demo) savedEnvironment() ([]string, error) {
	data, err := os.ReadFile(d.path("env"))
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if value, ok := strings.CutPrefix(line, "export KAPHERA_CLIENT_SECRET='"); ok {
			return d.environment(strings.TrimSuffix(value, "'")), nil
		}
	}
	return nil, fmt.Errorf("%s names no client secret: remove it and run make demo again", d.path("env"))
}

// writeVariables sets the workspace's variables once: the attestation's date
// must stay, or every run would be a change.
func (d *demo) writeVariables(now time.Time) error {
	path := d.path("pilot.tfvars")
	domain := fmt.Sprintf("domain = %q\n", d.Domain)
	if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), domain) { //nolint:gosec // the demo's own file
		return nil
	}
	completed := now.UTC().AddDate(0, -3, 0).Truncate(24 * time.Hour).Format(time.RFC3339)
	return replaceFile(path, []byte(domain+fmt.Sprintf("attestation_completed_at = %q\n", completed)), 0o644)
}
