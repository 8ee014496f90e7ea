// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
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
	if err := d.tofuInit(ctx, log); err != nil {
		return err
	}
	return d.tofuApply(ctx, log)
}

func (d *demo) tofuInit(ctx context.Context, log *stage.Log) error {
	// The lock file pins the hash of the last build of the provider.
	if err := os.Remove(filepath.Join(d.workspace(), ".terraform.lock.hcl")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log.Printf("init")
	return d.runTofu(ctx, log, "init", "-input=false", "-no-color")
}

func (d *demo) tofuApply(ctx context.Context, log *stage.Log, args ...string) error {
	log.Printf("apply %s", strings.Join(args, " "))
	return d.runTofu(ctx, log, append([]string{"apply", "-input=false", "-no-color", "-auto-approve"}, args...)...)
}

// authority is the person who signs off for the governance authority.
const authority = "gabriel"

// signOff has the governance authority sign off the revisions that the workspace made, by the commands that people type.
func (d *demo) signOff(ctx context.Context, log *stage.Log) error {
	env, err := d.savedEnvironment()
	if err != nil {
		return err
	}
	kaphera := func(args ...string) (string, error) {
		log.Printf("kaphera %s", strings.Join(args, " "))
		return proc.Output(ctx, proc.Cmd{Name: d.path("bin", "kaphera"), Args: args, Env: env.process(), Log: log})
	}
	listed, err := kaphera("get", "use-cases", "--output", "json")
	if err != nil {
		return err
	}
	waiting, err := unsigned([]byte(listed))
	if err != nil {
		return err
	}
	if len(waiting) == 0 {
		log.Cached()
		return nil
	}
	if _, err := kaphera("demo", "login", authority); err != nil {
		return err
	}
	if _, err := kaphera("--context", authority, "approvals", "key", "create"); err != nil {
		return err
	}
	for _, u := range waiting {
		if _, err := kaphera("--context", authority, "usecase", "sign-off", u.Name, "--revision", strconv.Itoa(u.Status.Revision.Number), "--hash", u.Status.Revision.Hash, "--yes"); err != nil {
			return err
		}
	}
	return nil
}

// useCase is what is read of a use case.
type useCase struct {
	Name   string `json:"name"`
	Status struct {
		Revision revision `json:"revision"`
		InForce  revision `json:"inForce"`
	} `json:"status"`
}

type revision struct {
	Number int    `json:"number"`
	Hash   string `json:"hash"`
}

// unsigned are the use cases whose newest revision is not in force.
func unsigned(list []byte) ([]useCase, error) {
	var all struct {
		Items []useCase `json:"items"`
	}
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, fmt.Errorf("use cases: %w", err)
	}
	return slices.DeleteFunc(all.Items, func(u useCase) bool { return u.Status.Revision == u.Status.InForce }), nil
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
	argv := append([]string{d.tofu}, args...)
	if d.company != nil {
		argv = append([]string{d.path("bin", "vpn")}, argv...)
	}
	err = proc.Run(ctx, proc.Cmd{
		Name: argv[0], Args: argv[1:], Dir: d.workspace(), Env: append(env.process(), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1"), Log: log,
	})
	if err != nil {
		return fmt.Errorf("%s %s in %s: %w", filepath.Base(d.tofu), args[0], d.workspace(), err)
	}
	return nil
}
