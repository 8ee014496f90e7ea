// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kaphera/kaphera/sandbox/cluster"
	"github.com/kaphera/kaphera/sandbox/image"
	"github.com/kaphera/kaphera/sandbox/internal/proc"
	"github.com/kaphera/kaphera/sandbox/stage"
)

// demo is one run. mu guards what stages leave for others.
type demo struct {
	Options
	target  target
	company *sandboxTarget // nil: there is none

	mu     sync.Mutex
	built  map[string]image.Built
	loaded map[string]string // image name in the manifests -> name in the cluster
	tofu   string
}

func newDemo(o Options) (*demo, error) {
	if err := o.settle(); err != nil {
		return nil, err
	}
	d := &demo{Options: o, built: map[string]image.Built{}, loaded: map[string]string{}}
	d.target, d.company = newTarget(&d.Options)
	return d, os.MkdirAll(d.dir, 0o755)
}

// images are the names that the cluster knows so far.
func (d *demo) images() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.loaded)
}

// Run brings the demo up and runs the exchange.
func Run(ctx context.Context, o Options) error {
	d, err := newDemo(o)
	if err != nil {
		return err
	}
	stages, err := stage.Run(ctx, d.stages(), stage.Options{Out: d.Out, Live: d.Live, LogDir: d.path("logs")})
	if err != nil {
		return err
	}
	r := report{Report: stages, Showings: []shown{}}
	if err := d.writeReport(r); err != nil {
		return err
	}
	if d.NoExchange {
		return d.farewell(ctx)
	}
	if r.Showings, err = d.show(ctx); err != nil {
		return err
	}
	if d.company != nil {
		if err := d.showFirewall(ctx); err != nil {
			return err
		}
	}
	if err := d.writeReport(r); err != nil {
		return err
	}
	return d.farewell(ctx)
}

// showings are what `kaphera demo run` shows, in this order: the trail that the last one exports has the first one in it.
var showings = []string{"carbon-footprint", "quality-recall", "revision", "policy-test", "audit"}

// shown is a showing, and how long it took.
type shown struct {
	Name    string        `json:"name"`
	Elapsed time.Duration `json:"elapsed"` // nanoseconds
}

// show runs the showings and lists how long each took.
func (d *demo) show(ctx context.Context) (took []shown, err error) {
	begin := time.Now()
	for _, name := range showings {
		_, _ = fmt.Fprintf(d.Out, "\n== %s\n", name)
		start := time.Now()
		if err := d.kaphera(ctx, "demo", "run", name); err != nil {
			return nil, fmt.Errorf("%s could not be shown: %w: the rest stands; after fixing it run make demo again", name, err)
		}
		took = append(took, shown{name, time.Since(start)})
	}
	_, _ = fmt.Fprintf(d.Out, "\nshown in %s\n", time.Since(begin).Round(100*time.Millisecond))
	for _, s := range took {
		_, _ = fmt.Fprintf(d.Out, "  %-18s %s\n", s.Name, s.Elapsed.Round(100*time.Millisecond))
	}
	_, err = fmt.Fprintln(d.Out)
	return took, err
}

// stages are the demo's steps. Among heavy ones that could start the first in
// the list does: Kubernetes, for which everything waits, before the rest.
func (d *demo) stages() []stage.Stage {
	company, clusters, systems := d.companyStages()
	stages := []stage.Stage{
		{Name: "packages", Group: stage.Build, Run: d.packages, Remedy: "see what apt-get says above; the machine must reach its package registry"},
		{Name: "kubernetes", Group: stage.Build, Heavy: d.Cluster == Sandbox, Run: d.target.build, Remedy: d.clusterRemedy()},
	}
	for _, name := range image.Services {
		stages = append(stages, stage.Stage{
			Name: "image " + name, Group: stage.Build, Needs: []string{"packages"}, Heavy: name == "nats",
			Run: d.buildImage(name), Remedy: "the package registries must be reachable; run it again, what was made is kept",
		})
	}
	for _, name := range image.Programs() {
		stages = append(stages, stage.Stage{Name: "image " + name, Group: stage.Build, Heavy: true, Run: d.buildImage(name), Remedy: "fix what the compiler says"})
	}
	stages = append(stages,
		stage.Stage{Name: "commands", Group: stage.Build, Heavy: true, Run: d.buildCommands, Remedy: "fix what the compiler says"},
		stage.Stage{Name: "opentofu", Group: stage.Build, Heavy: true, Run: d.getTofu, Remedy: "or put a tofu or terraform of your own on PATH"},
		stage.Stage{Name: "cluster", Group: stage.Provision, Needs: []string{"packages", "kubernetes"}, Run: d.up, Remedy: "`" + d.downCommand() + "` removes what is half there; then run it again"},
		stage.Stage{Name: "load services", Group: stage.Provision, Needs: append([]string{"cluster"}, prefixed(image.Services)...), Run: d.load(d.target, image.Services), Remedy: "run it again"},
		stage.Stage{Name: "load programs", Group: stage.Provision, Needs: append([]string{"cluster"}, prefixed(image.Programs())...), Run: d.load(d.target, image.Programs()), Remedy: "run it again"},
		stage.Stage{Name: "operators", Group: stage.Provision, Needs: []string{"load programs"}, Run: d.installOperators, Remedy: "the log shows which pod does not run and its last lines"},
		stage.Stage{Name: "platform", Group: stage.Provision, Needs: append([]string{"operators", "load services"}, clusters...), Run: d.applyPlatform, Remedy: "`kubectl --kubeconfig " + d.path("kubeconfig") + " -n kaphera-system describe platform kaphera` names the part that is missing"},
		stage.Stage{Name: "supplier backend", Group: stage.Provision, Needs: []string{"load programs"}, Run: d.applyBackend, Remedy: "the log shows which pod does not run and its last lines"},
		stage.Stage{Name: "workspace", Group: stage.Provision, Needs: append([]string{"platform", "commands", "opentofu"}, systems...), Run: d.applyWorkspace, Remedy: "`source " + d.path("env") + " && kaphera status` shows which participant waits for what"},
		stage.Stage{Name: "sign-off", Group: stage.Provision, Needs: []string{"workspace"}, Run: d.signOff, Remedy: "`source " + d.path("env") + " && kaphera get use-cases` shows which revisions are in force"},
	)
	return append(stages, company...)
}

func (d *demo) clusterRemedy() string {
	if d.Cluster == Sandbox {
		return "the compiler's words are above; with too little memory or disk (10 GB) free some and run it again"
	}
	return "" // the message says it
}

func prefixed(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = "image " + n
	}
	return out
}

// packages installs what making the third-party images takes.
func (d *demo) packages(ctx context.Context, log *stage.Log) error {
	missing := []string{}
	for _, n := range []struct{ program, pkg string }{
		{"dpkg-deb", "dpkg"}, {"python3", "python3"}, {"mvn", "maven"}, {"unshare", "util-linux"}, {"git", "git"},
	} {
		if _, err := exec.LookPath(n.program); err != nil {
			missing = append(missing, n.pkg)
		}
	}
	if _, err := proc.Output(ctx, proc.Cmd{Name: "python3", Args: []string{"-m", "pip", "--version"}, Log: log}); err != nil {
		missing = append(missing, "python3-pip")
	}
	listed, err := proc.Output(ctx, proc.Cmd{Name: "apt-cache", Args: []string{"policy", "postgresql-15"}, Log: log})
	if err != nil {
		return fmt.Errorf("the third-party images are made from Debian packages, so this needs a Debian-like machine: %w", err)
	}
	if len(missing) == 0 && strings.Contains(listed, "Candidate: 15") {
		log.Cached()
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing packages: %s: install them, or run this as root", strings.Join(missing, " "))
	}
	log.Printf("updating the package lists")
	if err := proc.Run(ctx, proc.Cmd{Name: "apt-get", Args: []string{"update", "-q"}, Log: log}); err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	log.Printf("installing %s", strings.Join(missing, " "))
	return proc.Run(ctx, proc.Cmd{
		Name: "apt-get", Args: append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...),
		Env: []string{"DEBIAN_FRONTEND=noninteractive"}, Log: log,
	})
}

func (d *demo) buildImage(name string) func(context.Context, *stage.Log) error {
	return func(ctx context.Context, log *stage.Log) error {
		c, err := image.Open()
		if err != nil {
			return err
		}
		recipe, err := c.Recipe(name)
		if err != nil {
			return err
		}
		b, err := c.Store.Build(ctx, recipe, log)
		if err != nil {
			return err
		}
		if b.Cached {
			log.Cached()
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.built[name] = b
		return nil
	}
}

func (d *demo) up(ctx context.Context, log *stage.Log) error {
	if d.company != nil {
		if err := cluster.Settle(ctx, d.company.options()); err != nil {
			return err
		}
	}
	a, err := d.target.up(ctx, log)
	if err != nil {
		return err
	}
	if a.caFile != "" {
		err = copyFile(a.caFile, d.path("ca.crt"), 0o644)
	} else if err = os.Remove(d.path("ca.crt")); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	return copyFile(a.kubeconfig, d.path("kubeconfig"), 0o600)
}

func (d *demo) load(t target, names []string) func(context.Context, *stage.Log) error {
	return func(ctx context.Context, log *stage.Log) error {
		d.mu.Lock()
		images := make([]image.Built, len(names))
		for i, n := range names {
			images[i] = d.built[n]
		}
		d.mu.Unlock()
		loaded, err := t.load(ctx, log, images)
		if err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		maps.Copy(d.loaded, loaded)
		return nil
	}
}

// kaphera runs the CLI as a person would after sourcing the demo's environment.
func (d *demo) kaphera(ctx context.Context, args ...string) error {
	env, err := d.savedEnvironment()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, d.path("bin", "kaphera"), args...) //nolint:gosec // the program just built
	cmd.Env = env.process()
	cmd.Stdout, cmd.Stderr, cmd.Stdin = d.Out, d.Out, os.Stdin
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kaphera %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

// farewell shows the status and where to go on.
func (d *demo) farewell(ctx context.Context) error {
	if err := d.kaphera(ctx, "status"); err != nil {
		return err
	}
	people, err := os.ReadFile(d.path("people.txt"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.Out, `
console    https://console.%[1]s
API        https://api.%[1]s   (https://api.%[1]s/api/v1/openapi.json)
authority  %[2]s

log in as (also in %[3]s)
%[4]s
next       source %[5]s && kaphera status
           %[6]s   removes everything
`, d.Domain, d.path("ca.crt"), d.path("people.txt"), indent(string(people)), d.path("env"), d.downCommand())
	return err
}

// downCommand is what to type to remove this demo.
func (d *demo) downCommand() string {
	command := "make demo-down"
	if d.Name != "demo" {
		command += " NAME=" + d.Name
	}
	if d.Cluster != Sandbox {
		command += " CLUSTER=" + d.Cluster
	}
	for _, option := range []struct{ name, value string }{ // a cluster of somebody else is found by them
		{"KUBECONFIG", d.Kubeconfig}, {"REGISTRY", d.Registry}, {"DOMAIN", d.givenDomain}, {"INGRESS_CLASS", d.IngressClass}, {"CA_FILE", d.CAFile},
	} {
		if option.value != "" {
			command += " " + option.name + "=" + option.value
		}
	}
	return command
}

func indent(s string) string {
	var out strings.Builder
	for line := range strings.Lines(s) {
		out.WriteString("  " + line)
	}
	return out.String()
}

// Down removes the demo.
func Down(ctx context.Context, o Options) error {
	d, err := newDemo(o)
	if err != nil {
		return err
	}
	var stages []stage.Stage
	if d.Cluster == Existing {
		stages = append(stages,
			stage.Stage{Name: "workspace", Group: stage.Provision, Run: d.destroyWorkspace, Remedy: "run it again; if the cluster is gone, remove the folder " + d.dir},
			stage.Stage{Name: "platform", Group: stage.Provision, Needs: []string{"workspace"}, Run: d.uninstall, Remedy: "run it again"})
	}
	stages = append(stages, stage.Stage{Name: "cluster", Group: stage.Provision, Run: d.target.down, Remedy: "run it again"})
	if d.Cluster == Existing {
		stages[len(stages)-1].Needs = []string{"platform"}
	}
	if d.company != nil {
		stages = append(stages, stage.Stage{Name: "company cluster", Group: stage.Provision, Run: d.company.down, Remedy: "run it again"})
	}
	if _, err := stage.Run(ctx, stages, stage.Options{Out: d.Out, Live: d.Live, LogDir: d.path("logs")}); err != nil {
		return err
	}
	return d.clean()
}

// uninstall removes what the demo installed from a cluster that stays.
func (d *demo) uninstall(ctx context.Context, log *stage.Log) error {
	k, err := newKube(d.Kubeconfig, "")
	if err != nil {
		return err
	}
	if err := k.remove(ctx, log, []*unstructured.Unstructured{platformObject()}, operatorLimit); err != nil {
		return err
	}
	for _, path := range slices.Backward(append(slices.Clone(installs), backendManifest)) {
		objects, err := d.manifest(path)
		if err != nil {
			return err
		}
		if err := k.remove(ctx, log, objects, operatorLimit); err != nil {
			return err
		}
	}
	return nil
}

// clean removes the demo's folder, other demos' folders inside it excepted.
func (d *demo) clean() error {
	for _, name := range []string{"bin", "providers", "logs", "terraform", "terraformrc", "kubeconfig", "kind-kubeconfig", "company-kubeconfig", "installer-kubeconfig", "company", "ca.crt", "env", "people.txt", "config",
		"pilot.tfstate", "pilot.tfstate.backup", "report.json"} {
		if err := os.RemoveAll(d.path(name)); err != nil {
			return err
		}
	}
	_ = os.Remove(d.dir) // stays while somebody else's files are in it
	_ = os.Remove(filepath.Join(d.root, folder))
	return nil
}
