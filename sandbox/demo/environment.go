// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// environment is what the CLI, the Terraform provider and the workspace need
// to know: KEY=value. It is kept in the demo's folder as a file for a shell.
type environment []string

// attestationDate is the workspace's variable that must keep its value: another
// date would be a change.
const attestationDate = "TF_VAR_attestation_completed_at"

// attestationAge is how old it may be: the use case allows less than twelve months.
const attestationAge = 300 * 24 * time.Hour

func (d *demo) environment(clientSecret string) (environment, error) {
	before, err := d.savedEnvironment()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	completed := before.get(attestationDate)
	// What an earlier demo left behind may have become too old to offer with.
	if at, err := time.Parse(time.RFC3339, completed); err != nil || time.Since(at) > attestationAge {
		completed = time.Now().UTC().AddDate(0, -3, 0).Truncate(24 * time.Hour).Format(time.RFC3339)
	}
	env := environment{
		"KAPHERA_API=https://api." + d.Domain, "KAPHERA_CLIENT_ID=" + terraformClient, "KAPHERA_CLIENT_SECRET=" + clientSecret,
		"KAPHERA_CONFIG_DIR=" + d.path("config"), "KAPHERA_PEOPLE=" + d.path("people.txt"), "KUBECONFIG=" + d.path("kubeconfig"), "KAPHERA_WORKSPACE=" + d.workspace(),
		"TF_CLI_CONFIG_FILE=" + d.path("terraformrc"), "TF_DATA_DIR=" + d.path("terraform"),
		"TF_VAR_domain=" + d.Domain, attestationDate + "=" + completed,
	}
	env = append(env, "TF_CLI_ARGS_init=-backend-config=path="+d.path("pilot.tfstate"))
	if _, err := os.Stat(d.path("ca.crt")); err == nil {
		env = append(env, "KAPHERA_CA_FILE="+d.path("ca.crt"))
	}
	if d.company != nil {
		env = append(env, "KAPHERA_CLUSTER="+d.Name, "KAPHERA_COMPANY="+d.company.name, "KAPHERA_COMPANY_KUBECONFIG="+d.path("company-kubeconfig"),
			"TF_VAR_company_kubeconfig="+d.path("installer-kubeconfig"),
			"TF_VAR_company_domain="+d.company.domain, "TF_VAR_company_ca_file="+d.path("company", "ca.crt"))
	}
	return append(env, "PATH="+d.path("bin")+":$PATH"), nil
}

func (e environment) get(name string) string {
	for _, v := range e {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// shell returns the environment as lines for a shell to source.
func (e environment) shell() []byte {
	var out bytes.Buffer
	for _, v := range e {
		name, value, _ := strings.Cut(v, "=")
		if rest, ok := strings.CutSuffix(value, ":$PATH"); ok {
			fmt.Fprintf(&out, "export %s='%s':\"$PATH\"\n", name, rest)
			continue
		}
		fmt.Fprintf(&out, "export %s='%s'\n", name, value)
	}
	return out.Bytes()
}

// process returns the environment for a program that this one starts.
func (e environment) process() []string {
	env := os.Environ()
	for _, v := range e {
		env = append(env, strings.Replace(v, ":$PATH", ":"+os.Getenv("PATH"), 1))
	}
	return env
}

// savedEnvironment is the environment that the platform stage left in the demo's folder.
func (d *demo) savedEnvironment() (environment, error) {
	data, err := os.ReadFile(d.path("env"))
	if err != nil {
		return nil, err
	}
	var env environment
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q is no assignment: remove the file and run make demo again", d.path("env"), line)
		}
		env = append(env, name+"="+strings.NewReplacer("'", "", `"`, "").Replace(value))
	}
	return env, nil
}
