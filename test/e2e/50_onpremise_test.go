// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/client/install"
	"github.com/kaphera/kaphera/test/apiserver"
)

// The OEM's cell in its own cluster, and where it is there.
const (
	companyCell      = "oem-frankfurt"
	companyNamespace = "cell-" + companyCell
	industrial       = "industrial" // of the company's own Vault and database
)

// companyCluster is the sandbox cluster that plays the company's.
func companyCluster(t *testing.T) string {
	t.Helper()
	name := os.Getenv("KAPHERA_COMPANY")
	if name == "" {
		t.Fatal("KAPHERA_COMPANY is not in the cluster's env file")
	}
	return name
}

// inNetworkOf runs a command on the node of a sandbox cluster.
func inNetworkOf(cluster string) []string {
	return []string{"nsenter", "--net=/run/netns/kaphera-" + cluster, "--"}
}

// companyKubectl runs kubectl as the company's administrator in its VPN, from where alone its API server is reached.
func companyKubectl(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, "vpn", append([]string{kubectl(t), "--kubeconfig", os.Getenv("KAPHERA_COMPANY_KUBECONFIG")}, args...)...)
}

func cloudKubectl(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, kubectl(t), append([]string{"--kubeconfig", filepath.Join(dir, "kubeconfig")}, args...)...)
}

func kubectl(t *testing.T) string {
	t.Helper()
	tools, err := apiserver.Assets()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(tools, "kubectl")
}

// traffic is what the company's firewall has counted.
type traffic struct {
	Connections map[string]int `json:"connections"`
	Callers     []struct {
		Address string `json:"address"`
		Pod     string `json:"pod"`
		Port    int    `json:"port"`
	} `json:"callers"`
}

func firewall(t *testing.T) (seen traffic) {
	t.Helper()
	if err := json.Unmarshal([]byte(must(t, sandbox, "firewall", companyCluster(t))), &seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

// A company takes part from its own cluster, which the cloud cannot reach: data flows in both directions, what is the company's stays there, and an agent
// that is cut off comes back to what has become of its cell.
func TestOnPremise(t *testing.T) {
	api := cloud(t)
	before := firewall(t)
	t.Run("it consumes from a participant of the shared cell", func(t *testing.T) {
		offerPassport(t, api, "supplier", "e2e-to-frankfurt", "http://pcf-backend.supplier-backend.svc/readyz")
		fetched(t, api, "oem", "supplier", "e2e-to-frankfurt")
	})
	t.Run("a participant of the shared cell consumes from it", func(t *testing.T) {
		offerPassport(t, api, "oem", "e2e-from-frankfurt", "http://pcf-backend.plant.svc/readyz")
		address := fetched(t, api, "supplier", "oem", "e2e-from-frankfurt")
		if want := "https://dataspace." + os.Getenv("TF_VAR_company_domain") + "/"; !strings.HasPrefix(address, want) {
			t.Errorf("the data came from %s, not from %s", address, want)
		}
	})
	t.Run("the cloud has not dialled in", func(t *testing.T) {
		after := firewall(t)
		if after.Connections["cloud-dsp"] == 0 || after.Connections["out-cloud"] == 0 { // connections may be older than this test, and were used again
			t.Fatalf("the exchange did not go through the firewall: %v", after.Connections)
		}
		for _, counter := range []string{"cloud-refused", "out-refused"} {
			if n := after.Connections[counter] - before.Connections[counter]; n != 0 {
				t.Errorf("%d attempts were %s", n, counter)
			}
		}
		connectors := 0
		for _, c := range after.Callers { // since the company's cluster stands, whatever ran before this test
			switch namespace, pod, _ := strings.Cut(c.Pod, "/"); {
			case pod == "prober" || pod == "": // of the tests themselves, to see that it is refused
			case !strings.HasPrefix(namespace, "cell-") || c.Port != 443:
				t.Errorf("%s began a connection to port %d of the company", c.Pod, c.Port)
			default:
				connectors++
			}
		}
		if connectors == 0 {
			t.Errorf("no connector is among %+v", after.Callers)
		}
	})
	t.Run("its API server is reached from its VPN alone", apiServerOfTheCompany)
	t.Run("Terraform's account has the documented rights alone", whatTerraformMayDo)
	t.Run("its infrastructure team sees the whole state and no Secret", whatInfrastructureSees)
	t.Run("its Vault and its database hold what is its own", whatTheCompanyHolds)
	t.Run("cut off and back", cutOff)
}

// offerPassport has a participant offer what its backend answers, under a use case that waits for nobody.
func offerPassport(t *testing.T, api *client.API, provider, asset, baseURL string) {
	t.Helper()
	a := client.Asset{
		ID: asset, Properties: map[string]any{"name": asset, "dct:type": "https://w3id.org/catenax/taxonomy#DigitalProductPassport"},
		DataAddress: map[string]string{"type": "HttpData", "baseUrl": baseURL},
	}
	if _, err := api.PutAssetWithResponse(t.Context(), provider, asset, a); err != nil {
		t.Fatal(err)
	}
	eventually(t, provider+" offers "+asset, func(ctx context.Context) (bool, string) {
		_, err := api.CreateOfferWithResponse(ctx, provider, client.OfferCreate{ID: "offer-" + asset, Asset: asset, UseCase: "digital-product-passport"})
		return err == nil, fmt.Sprint(err)
	})
}

// fetched negotiates, transfers and fetches, and returns the address that the data came from.
func fetched(t *testing.T, api *client.API, consumer, provider, asset string) string {
	t.Helper()
	n := negotiate(t, api, consumer, provider, asset)
	if n.State != "FINALIZED" {
		t.Fatalf("the negotiation ended %s: %+v", n.State, n.Reason)
	}
	if got := strings.TrimSpace(must(t, "kaphera", "transfer", consumer, "--agreement", n.AgreementID, "--fetch")); got != "ok" {
		t.Errorf("the data is %q", got)
	}
	transfers, err := api.ListTransfersWithResponse(t.Context(), consumer)
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range transfers.JSON200.Items {
		if tr.AgreementID == n.AgreementID {
			return tr.Endpoint
		}
	}
	t.Fatalf("there is no transfer under agreement %s: %s", n.AgreementID, transfers.Body)
	return ""
}

func apiServerOfTheCompany(t *testing.T) {
	server := companyKubectl(t, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	node := strings.TrimSuffix(strings.TrimPrefix(server, "https://"), ":6443")
	if got := companyKubectl(t, "get", "namespace", industrial, "-o", "name"); strings.TrimSpace(got) != "namespace/"+industrial {
		t.Errorf("from the VPN: %q", got)
	}
	before := firewall(t).Connections["world-refused"]
	if _, said, code := command(t, "curl", "--insecure", "--silent", "--show-error", "--max-time", "5", server+"/version"); code == 0 {
		t.Errorf("this machine reaches it: %s", said)
	}
	if firewall(t).Connections["world-refused"] == before {
		t.Error("the firewall has seen no attempt from this machine")
	}
	// A pod whose traffic is a data plane's, so that nothing but the company's firewall stops it.
	probe := prober(t, cellNamespace, map[string]string{"app.kubernetes.io/component": "data-plane"})
	probe(t, node+":443", true)
	probe(t, node+":6443", false)
}

// whatTerraformMayDo compares, in every namespace, the rights of the account that installed the cell with those in docs/on-premise.md, which
// TestPermissionsAreDocumented holds to Permissions. What any account may is what one without rights of its own may.
func whatTerraformMayDo(t *testing.T) {
	installer := []string{kubectl(t), "--kubeconfig", os.Getenv("TF_VAR_company_kubeconfig")}
	who := strings.TrimSpace(must(t, "vpn", append(installer, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")...))
	if want := "system:serviceaccount:" + companyNamespace + ":" + install.Account; who != want {
		t.Fatalf("Terraform is %s in the company's cluster, not %s", who, want)
	}
	cell, err := install.Open(t.Context(), cloud(t), companyCell, nil)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for _, p := range cell.Permissions() {
		for _, verb := range p.Verbs {
			documented[p.Namespace] = append(documented[p.Namespace], fmt.Sprintf("%s %s.%s %v", verb, p.Resource, p.Group, p.Names))
		}
	}
	namespaces := strings.Fields(companyKubectl(t, "get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}"))
	if !slices.Contains(namespaces, industrial) {
		t.Fatalf("the company's namespaces are %v", namespaces)
	}
	for _, namespace := range namespaces {
		anybody := mayDo(t, namespace, func(args ...string) string {
			return companyKubectl(t, append(args, "--as=system:serviceaccount:"+industrial+":nobody")...)
		})
		may := mayDo(t, namespace, func(args ...string) string { return must(t, "vpn", append(installer, args...)...) })
		may = slices.DeleteFunc(may, func(right string) bool { return slices.Contains(anybody, right) })
		want := append(slices.Clone(documented[namespace]), documented[""]...)
		slices.Sort(may)
		slices.Sort(want)
		if !slices.Equal(may, want) {
			t.Errorf("in namespace %s it may %v, and documented is %v", namespace, may, want)
		}
	}
	for secret, own := range map[string]bool{companyNamespace + "/" + install.CredentialsSecret: true, companyNamespace + "/dataspace-account": false, industrial + "/openbao-unseal": false} {
		namespace, name, _ := strings.Cut(secret, "/")
		companyKubectl(t, "get", "secret", "-n", namespace, name) // it is there
		_, said, code := command(t, "vpn", append(installer, "get", "secret", "-n", namespace, name, "-o", "name")...)
		if own != (code == 0) || !own && !strings.Contains(said, "Forbidden") {
			t.Errorf("Secret %s: exit code %d, %s", secret, code, said)
		}
	}
}

// mayDo are the rights that whoever asks has in a namespace, the cluster's included: verb, group, resource and names.
func mayDo(t *testing.T, namespace string, kubectl func(...string) string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "review.json")
	if err := os.WriteFile(file, []byte(`{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectRulesReview","spec":{"namespace":"`+namespace+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	var review authorizationv1.SelfSubjectRulesReview
	if err := json.Unmarshal([]byte(kubectl("create", "--validate=false", "-f", file, "-o", "json")), &review); err != nil {
		t.Fatal(err)
	}
	if review.Status.Incomplete {
		t.Fatalf("the API server does not say all: %+v", review.Status)
	}
	var out []string
	for _, r := range review.Status.ResourceRules {
		for _, verb := range r.Verbs {
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					out = append(out, fmt.Sprintf("%s %s.%s %v", verb, resource, group, r.ResourceNames))
				}
			}
		}
	}
	return out
}

// whatInfrastructureSees binds the role of docs/on-premise.md to a group, who then read of every kind in the cell's namespace what its administrator
// reads, but Secrets, and change nothing anywhere.
func whatInfrastructureSees(t *testing.T) {
	const group = "plant-infrastructure"
	companyKubectl(t, "-n", companyNamespace, "create", "rolebinding", "infrastructure", "--role=kaphera-cell-viewer", "--group="+group)
	defer companyKubectl(t, "-n", companyNamespace, "delete", "rolebinding", "infrastructure")
	member := []string{kubectl(t), "--kubeconfig", os.Getenv("KAPHERA_COMPANY_KUBECONFIG"), "--as=ines", "--as-group=" + group, "--as-group=system:authenticated"}
	read := map[string]bool{}
	for _, kind := range strings.Fields(companyKubectl(t, "api-resources", "--namespaced", "--verbs=list", "-o", "name")) {
		names := []string{"get", kind, "-n", companyNamespace, "-o", "name"}
		there := companyKubectl(t, names...)
		if there == "" || kind == "endpoints" { // which EndpointSlices have replaced
			continue
		}
		out, said, code := command(t, "vpn", append(slices.Clone(member), names...)...)
		switch {
		case kind == "secrets":
			if code == 0 || !strings.Contains(said, "Forbidden") {
				t.Errorf("Secrets: exit code %d, %s", code, said)
			}
		case code != 0:
			t.Errorf("%s: %s", kind, said)
		default:
			read[kind] = out != ""
		}
	}
	for _, kind := range []string{"connectors.edc.kaphera.io", "participantcontexts.edc.kaphera.io", "pods", "events", "deployments.apps", "leases.coordination.k8s.io"} {
		if !read[kind] {
			t.Errorf("nothing is seen of %s", kind)
		}
	}
	state := must(t, "vpn", append(slices.Clone(member), "get", "connectors.edc.kaphera.io", "-n", companyNamespace, "-o", "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}")...)
	if state != "True" {
		t.Errorf("the connector's state is %q", state)
	}
	for _, namespace := range []string{companyNamespace, industrial} {
		anybody := mayDo(t, namespace, func(args ...string) string { return companyKubectl(t, append(args, "--as=ines")...) })
		for _, right := range mayDo(t, namespace, func(args ...string) string { return must(t, "vpn", append(slices.Clone(member), args...)...) }) {
			verb, _, _ := strings.Cut(right, " ")
			if !slices.Contains(anybody, right) && (namespace != companyNamespace || !slices.Contains([]string{"get", "list", "watch"}, verb)) {
				t.Errorf("in namespace %s they may %s", namespace, right)
			}
		}
	}
}

func whatTheCompanyHolds(t *testing.T) {
	const owner = "rheintal-motoren" // the context of its participant
	psql := func(sql string) []string {
		return []string{"psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql}
	}
	row := "SELECT count(*) FROM control_plane.participants p JOIN wallet.participants w USING (ctx) WHERE ctx = '" + owner + "'"
	if n := companyKubectl(t, append(append([]string{"exec", "-n", industrial, "deploy/postgresql", "--"}, psql(row)...), "--host=/tmp", "--username=postgres", "dataspace")...); strings.TrimSpace(n) != "1" {
		t.Errorf("in the company's database are %s participants %s", n, owner)
	}
	rights := "SELECT rolsuper, rolcreaterole, rolcreatedb, (SELECT count(*) FROM pg_database d WHERE datallowconn AND has_database_privilege(r.oid, d.oid, 'CREATE')) FROM pg_roles r WHERE rolname = 'dataspace'"
	if got := companyKubectl(t, append(append([]string{"exec", "-n", industrial, "deploy/postgresql", "--"}, psql(rights)...), "--host=/tmp", "--username=postgres", "dataspace")...); strings.TrimSpace(got) != "f|f|f|1" {
		t.Errorf("the account's rights: superuser, create roles, create databases, databases of its own: %s", got)
	}
	inCloud := func(database, sql string) string {
		args := append([]string{"exec", "-n", ownSystem, "postgresql-0", "--", "sh", "-c", `PGPASSWORD="$(cat /etc/postgresql-admin/password)" exec "$@"`, "sh"}, psql(sql)...)
		return cloudKubectl(t, append(args, "--host=localhost", "--username=postgres", database)...)
	}
	databases := strings.Fields(inCloud("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'cell\\_%'"))
	if !slices.Contains(databases, "cell_shared") {
		t.Fatalf("the cloud's databases are %v", databases)
	}
	for _, database := range databases {
		if strings.Contains(database, "_i_") { // an issuer's
			continue
		}
		if strings.Contains(database, "frankfurt") || strings.TrimSpace(inCloud(database, row)) != "0" {
			t.Errorf("the cloud's database %s has %s", database, owner)
		}
	}

	own := vault{companyKubectl, industrial, os.Getenv("TF_VAR_company_ca_file"), "plant", "infrastructure", inNetworkOf(companyCluster(t))}
	company := func(path string) []string { return own.list(t, path) }
	if keys := company("industrial/kv/metadata/dataspace/" + owner + "/keys"); !slices.Contains(keys, "key-1") {
		t.Errorf("the company's Vault has the keys %v", keys)
	}
	_, cs := kube(t)
	authority := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(authority, []byte(connectorOfCell(t, cs).Spec.Vault.CABundle), 0o600); err != nil {
		t.Fatal(err)
	}
	clouds := vault{cloudKubectl, ownSystem, authority, "kubernetes", "cloud-operator", inNetworkOf(os.Getenv("KAPHERA_CLUSTER"))}
	ofCloud := func(path string) []string { return clouds.list(t, path) }
	if cells := ofCloud("kv/metadata/cells"); !slices.Contains(cells, "shared/") || slices.Contains(cells, companyCell+"/") {
		t.Errorf("the cloud's Vault has the cells %v", cells)
	}
	if owners := ofCloud("kv/metadata/cells/shared/connector"); !slices.Contains(owners, "brandt-guss/") || slices.Contains(owners, owner+"/") {
		t.Errorf("the cloud's Vault has keys of %v", owners)
	}
}

// vault is the OpenBao of a cluster, and the service account and role that may list what is in it.
type vault struct {
	kubectl                        func(*testing.T, ...string) string
	namespace, caFile, mount, role string
	inside                         []string // runs a command where Services are reached
}

// list returns the names below a path.
func (v vault) list(t *testing.T, path string) []string {
	t.Helper()
	host := "openbao." + v.namespace + ".svc"
	address := strings.TrimSpace(v.kubectl(t, "get", "service", "-n", v.namespace, "openbao", "-o", "jsonpath={.spec.clusterIP}"))
	ask := func(into any, path string, more ...string) {
		t.Helper()
		args := slices.Concat(v.inside, []string{"curl", "--fail-with-body", "--silent", "--show-error", "--max-time", "60", "--cacert", v.caFile, "--resolve", host + ":8200:" + address}, more)
		said := must(t, args[0], append(args[1:], "https://"+host+":8200/v1/"+path)...)
		if err := json.Unmarshal([]byte(said), into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	token := strings.TrimSpace(v.kubectl(t, "create", "token", "-n", v.namespace, v.role, "--audience", "vault"))
	var login struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	secret := func(content string) string { // not in the arguments, which a failure shows
		name := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "@" + name
	}
	ask(&login, "auth/"+v.mount+"/login", "--data", secret(`{"role":"`+v.role+`","jwt":"`+token+`"}`))
	var found struct{ Data struct{ Keys []string } }
	ask(&found, path, "--request", "LIST", "--header", secret("X-Vault-Token: "+login.Auth.ClientToken))
	return found.Data.Keys
}
