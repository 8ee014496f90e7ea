// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/kaphera/kaphera/cli"
	"github.com/kaphera/kaphera/client"
)

// A cell is backed up, its cluster loses everything that ran and was kept in it, and from the archives it becomes what it was. The commands are those of
// docs/operator.md. When it fails midway nothing of the company works: it comes last.
func TestBackupAndRestore(t *testing.T) {
	api := cloud(t)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	archives := filepath.Join(t.TempDir(), "archives")
	for name, value := range map[string]string{
		"CELL": companyCell, "CELL_KUBECONFIG": os.Getenv("KAPHERA_COMPANY_KUBECONFIG"), "ARCHIVES": archives, "RECIPIENT": key.Recipient().String(),
		"KEY_FILE": filepath.Join(t.TempDir(), "backup.key"),
	} {
		t.Setenv(name, value)
	}
	if err := os.WriteFile(os.Getenv("KEY_FILE"), []byte(key.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("a cell with issuers, which works meanwhile", func(t *testing.T) { backUpShared(t, key) })

	backup, stop, restore := backupBlocks(t)
	offerPassport(t, api, "supplier", "e2e-before-the-loss", "http://pcf-backend.supplier-backend.svc/readyz")
	agreed := negotiate(t, api, "oem", "supplier", "e2e-before-the-loss")
	if agreed.State != "FINALIZED" {
		t.Fatalf("the negotiation ended %s: %+v", agreed.State, agreed.Reason)
	}
	methods := func() string {
		t.Helper()
		var doc struct {
			ID                 string          `json:"id"`
			VerificationMethod json.RawMessage `json:"verificationMethod"`
		}
		status, body := publicGet(t, readFile(t, caFile()), "https://dataspace."+os.Getenv("TF_VAR_company_domain")+"/rheintal-motoren/did.json")
		if status != http.StatusOK || json.Unmarshal(body, &doc) != nil {
			return fmt.Sprintf("%d %s", status, body)
		}
		return doc.ID + string(doc.VerificationMethod)
	}
	before := methods()
	if !strings.Contains(before, "key-1") {
		t.Fatalf("its DID document: %s", before)
	}
	inVPN := func(script string) (said string, code int) {
		t.Helper()
		_, said, code = command(t, "vpn", "bash", "-euo", "pipefail", "-c", script)
		return said, code
	}
	run := func(script string) {
		t.Helper()
		if said, code := inVPN(script); code != 0 {
			t.Fatalf("%s: exit code %d\n%s", script, code, said)
		}
	}
	run(backup)
	if said, code := inVPN(strings.Split(restore, "\n")[0]); code == 0 || !strings.Contains(said, "replicas 1") {
		t.Errorf("a restore into a cell that runs: exit code %d, %s", code, said)
	}
	run(stop) // so that nothing happens after the archive is made, of which the cloud would know
	run(`rm -r "$ARCHIVES"` + "\n" + backup)
	if said, code := inVPN(backup); code == 0 || !strings.Contains(said, "is there") {
		t.Errorf("an archive is written over: exit code %d, %s", code, said)
	}
	loseTheCompany(t)
	run(`kaphera cell install "$CELL" --kubeconfig "$CELL_KUBECONFIG"`)
	run(stop[:strings.Index(stop, "\n")+1] + restore)

	eventually(t, "the cell and its participant are as before", func(ctx context.Context) (bool, string) {
		c, err := api.GetCellWithResponse(ctx, companyCell)
		if err != nil {
			return false, err.Error()
		}
		if ok, why := ready(c.JSON200.Status.Conditions); !ok {
			return false, why
		}
		if i := slices.IndexFunc(c.JSON200.Status.Conditions, func(c client.Condition) bool { return c.Type == "AuditIntact" }); i < 0 || c.JSON200.Status.Conditions[i].Status != "True" {
			return false, string(c.Body)
		}
		p, err := api.GetParticipantWithResponse(ctx, "oem")
		if err != nil {
			return false, err.Error()
		}
		return ready(p.JSON200.Status.Conditions)
	})
	if after := methods(); after != before {
		t.Errorf("the restored participant has keys %s, had %s", after, before)
	}
	if got := strings.TrimSpace(must(t, "kaphera", "transfer", "oem", "--agreement", agreed.AgreementID, "--fetch")); got != "ok" {
		t.Errorf("by the agreement of before it fetches %q", got)
	}
	trail := filepath.Join(t.TempDir(), "oem.jsonl")
	eventually(t, "an export that fits the heads that the cloud keeps", func(context.Context) (bool, string) {
		must(t, "kaphera", "audit", "export", "oem", "--to", trail)
		_, all, code := command(t, "kaphera", "audit", "verify", trail, "--participant", "oem")
		return code == 0 && strings.Contains(all, "heads from elsewhere"), all
	})
	if n := bytes.Count(readFile(t, trail), []byte(`"participant.restored"`)); n != 1 {
		t.Errorf("the trail has %d records of a restore", n)
	}
}

// backUpShared backs up the shared cell, and looks into the archives.
func backUpShared(t *testing.T, key *age.X25519Identity) {
	to := filepath.Join(t.TempDir(), "shared")
	var report cli.BackupReport
	if err := json.Unmarshal([]byte(must(t, "kaphera", "cell", "backup", "shared", "--kubeconfig", filepath.Join(dir, "kubeconfig"), "--to", to, "--recipient", key.Recipient().String(), "-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	runtimes := map[string]bool{}
	for _, a := range report.Archives {
		runtimes[a.Runtime] = true
		opened, err := age.Decrypt(bytes.NewReader(readFile(t, a.File)), key)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, opened); err != nil || n == 0 || a.Rows == 0 || a.Secrets == 0 {
			t.Errorf("%+v: %d bytes, %v", a, n, err)
		}
	}
	_, cs := kube(t)
	var issuers struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	getInto(t, cs, "/apis/edc.kaphera.io/v1alpha1/namespaces/"+cellNamespace+"/credentialissuers", &issuers)
	for _, i := range issuers.Items {
		if !runtimes[i.Metadata.Name] {
			t.Errorf("issuer %s has no archive", i.Metadata.Name)
		}
	}
	if !runtimes["connector"] || len(issuers.Items) == 0 {
		t.Errorf("the archives are of %v, the issuers are %v", runtimes, issuers.Items)
	}
	eventually(t, "no pod is left", func(context.Context) (bool, string) {
		pods := strings.TrimSpace(cloudKubectl(t, "get", "pods", "-n", cellNamespace, "-l", "app.kubernetes.io/component=backup", "-o", "name"))
		return pods == "", pods
	})
}

// backupBlocks are the commands of docs/operator.md.
func backupBlocks(t *testing.T) (backup, stop, restore string) {
	t.Helper()
	_, section, _ := strings.Cut(string(readFile(t, filepath.Join("..", "..", "docs", "operator.md"))), "\n## Back up and restore\n")
	section, _, _ = strings.Cut(section, "\n## ")
	found := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(found) != 3 {
		t.Fatalf("docs/operator.md has %d shell blocks on backups, expected three", len(found))
	}
	return found[0][1], found[1][1], found[2][1]
}

// loseTheCompany leaves of the cell in the company's cluster what its administrators have given (namespace, kinds, rights, accounts), with a new
// database server and a new Vault.
func loseTheCompany(t *testing.T) {
	t.Helper()
	in := func(namespace string, args ...string) string {
		t.Helper()
		return companyKubectl(t, append([]string{"-n", namespace}, args...)...)
	}
	in(companyNamespace, "delete", "deployments", "kaphera-cell-agent", "edc-operator", "--cascade=foreground", "--timeout=3m")
	const kinds = "participantcontexts,connectors,credentialissuers"
	for _, name := range strings.Fields(in(companyNamespace, "get", kinds, "-o", "name")) {
		in(companyNamespace, "patch", name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`) // who would do what they stand for is gone
	}
	in(companyNamespace, "delete", kinds, "--all", "--timeout=3m")
	in(companyNamespace, "delete", "secret", "cell-agent-nats")
	eventually(t, "nothing of the connector left", func(context.Context) (bool, string) {
		left := strings.TrimSpace(in(companyNamespace, "get", "deployments,pods,secrets,configmaps,serviceaccounts", "-l", "app.kubernetes.io/managed-by=edc-operator", "-o", "name"))
		return left == "", left
	})
	for name, size := range map[string]string{"postgresql": "1Gi", "openbao": "256Mi"} {
		in(industrial, "scale", "deployment/"+name, "--replicas=0")
		in(industrial, "wait", "--for=delete", "pods", "-l", "app="+name, "--timeout=3m")
		in(industrial, "delete", "pvc/"+name, "--timeout=3m")
		claim := filepath.Join(t.TempDir(), "claim.json")
		manifest := fmt.Sprintf(`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":%q},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":%q}}}}`, name, size)
		if err := os.WriteFile(claim, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		in(industrial, "create", "-f", claim)
		in(industrial, "scale", "deployment/"+name, "--replicas=1")
	}
	for _, name := range []string{"postgresql", "openbao"} {
		in(industrial, "rollout", "status", "deployment/"+name, "--timeout=4m")
	}
}
