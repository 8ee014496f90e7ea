// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/kaphera/kaphera/sandbox/internal/proc"
	"github.com/kaphera/kaphera/sandbox/stage"
	"github.com/kaphera/kaphera/sandbox/tool"
)

const (
	providerVersion = "0.1.0"
	providerAddress = "kaphera.dev/kaphera/kaphera"
)

// workspace is the folder of the pilot.
func (d *demo) workspace() string { return filepath.Join(d.root, "terraform", "pilot") }

// buildCommands builds what people run on their own machine: the CLI and the provider.
func (d *demo) buildCommands(ctx context.Context, log *stage.Log) error {
	mirror := d.path("providers", providerAddress, providerVersion, runtime.GOOS+"_"+runtime.GOARCH)
	builds := map[string]string{
		d.path("bin", "kaphera"): "./cmd/kaphera",
		filepath.Join(mirror, "terraform-provider-kaphera_v"+providerVersion): "./cmd/terraform-provider-kaphera",
	}
	cached := true
	for out, pkg := range builds {
		log.Printf("%s", pkg)
		before, _ := os.Stat(out) // absent the first time
		err := proc.Run(ctx, proc.Cmd{
			Name: "go", Args: []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg},
			Dir: d.root, Env: []string{"CGO_ENABLED=0"}, Log: log,
		})
		if err != nil {
			return fmt.Errorf("build %s: %w", pkg, err)
		}
		after, err := os.Stat(out)
		if err != nil {
			return err
		}
		cached = cached && before != nil && before.ModTime().Equal(after.ModTime())
	}
	if cached {
		log.Cached()
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
	d.tofu = found.Path
	d.mu.Unlock()
	if _, err := exec.LookPath(filepath.Base(found.Path)); err == nil {
		return nil
	}
	// For the people who source the demo's environment.
	link := d.path("bin", tool.OpenTofu)
	if err := os.MkdirAll(d.path("bin"), 0o755); err != nil {
		return err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(found.Path, link)
}

// applyWorkspace applies the pilot.
func (d *demo) applyWorkspace(ctx context.Context, log *stage.Log) error {
	// The lock file pins the hash of the last build of the provider.
	if err := os.Remove(filepath.Join(d.workspace(), ".terraform.lock.hcl")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log.Printf("init")
	if err := d.runTofu(ctx, log, "init", "-input=false", "-no-color"); err != nil {
		return err
	}
	log.Printf("apply")
	return d.runTofu(ctx, log, "apply", "-input=false", "-no-color", "-auto-approve")
}

func (d *demo) destroyWorkspace(ctx context.Context, log *stage.Log) error {
	if _, err := os.Stat(d.path("pilot.tfstate")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.getTofu(ctx, log); err != nil {
		return err
	}
	return d.runTofu(ctx, log, "destroy", "-input=false", "-no-color", "-auto-approve")
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
	err = proc.Run(ctx, proc.Cmd{
		Name: d.tofu, Args: args, Dir: d.workspace(), Env: append(env.process(), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1"), Log: log,
	})
	if err != nil {
		return fmt.Errorf("%s %s in %s: %w", filepath.Base(d.tofu), args[0], d.workspace(), err)
	}
	return nil
}
