// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v3/jwk"
	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/dcp"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
	"github.com/kaphera/kaphera/edcoperator/workload"
)

const attestation = "DataQualityAttestationCredential"

func authorityDID() string { return "did:web:authority." + domain() + ":issuer" }
func auditorDID() string   { return "did:web:auditor." + domain() + ":issuer" }

// freshClaims are those of an attestation with which nothing is wrong but its issuer.
func freshClaims() map[string]any {
	return map[string]any{"attestationId": "DQA-TEST", "providerName": "Prüfhaus Nord GmbH", "completedAt": time.Now().UTC().AddDate(0, 0, -30).Format(time.RFC3339)}
}

// issuedByTheAuthority has the attestation issued, by DCP, by an issuer of the dataspace that is trusted for memberships only. The
// operator, which would put the issuer right again, is stopped meanwhile.
func issuedByTheAuthority(t *testing.T, holder, did string) {
	t.Helper()
	_, cs := kube(t)
	restart := stopOperator(t, cs)
	defer restart()
	var issuer edc.CredentialIssuer
	getInto(t, cs, "/apis/edc.kaphera.io/v1alpha1/namespaces/"+cellNamespace+"/credentialissuers/"+issuerName(t, cs, "authority."), &issuer)
	base, token := internalAPI(t, cellNamespace, issuer.Status.InternalURL, issuer.Status.InternalSecret)
	at := base + "/admin/v1/issuers/" + issuer.Spec.Context
	config := adminapi.IssuerConfig{DID: authorityDID(), Types: []adminapi.CredentialType{{Type: attestation, Validity: "P30D"}}}
	for _, c := range issuer.Spec.CredentialTypes {
		config.Types = append(config.Types, adminapi.CredentialType{Type: c.Type, Validity: c.Validity, RequiredClaims: c.RequiredClaims})
	}
	admin(t, http.MethodPut, at, token, config, nil)
	var entitled adminapi.Holder
	holderAt := at + "/holders/" + base64.RawURLEncoding.EncodeToString([]byte(did))
	admin(t, http.MethodGet, holderAt, token, nil, &entitled)
	entitled.Credentials = append(entitled.Credentials, adminapi.HolderCredential{Type: attestation, Claims: raw(t, freshClaims())})
	admin(t, http.MethodPut, holderAt, token, entitled, nil)

	wallet, token := walletAPI(t, cs)
	at = wallet + "/admin/v1/participants/" + holder
	admin(t, http.MethodPost, at+"/credential-requests", token, adminapi.CredentialRequest{Issuer: authorityDID(), Type: attestation}, nil)
	awaitUntrusted(t, at, token, authorityDID())
}

// selfIssued lets the supplier sign its own attestation with the key of its DID, and put it into its own wallet as an issuer would.
func selfIssued(t *testing.T, holder, did string) {
	t.Helper()
	_, cs := kube(t)
	wallet, token := walletAPI(t, cs)
	at := wallet + "/admin/v1/participants/" + holder
	admin(t, http.MethodPost, at+"/credential-requests", token, adminapi.CredentialRequest{Issuer: did, Type: attestation}, nil)
	request := requestID(t, cs, holder, did)

	key := ownKey(t, cs, holder, did)
	now := time.Now().UTC()
	subject := freshClaims()
	subject["id"] = did
	credential, err := key.Sign(map[string]any{"iss": did, "sub": did, "vc": map[string]any{
		"@context": []string{"https://www.w3.org/2018/credentials/v1"}, "id": "urn:uuid:" + uuid.NewString(), "type": []string{"VerifiableCredential", attestation}, "issuer": did,
		"issuanceDate": now.Add(-time.Minute).Format(time.RFC3339), "expirationDate": now.AddDate(0, 1, 0).Format(time.RFC3339), "credentialSubject": subject,
	}}, "JWT")
	if err != nil {
		t.Fatal(err)
	}
	authorization, _, err := dcp.NewIDToken(key, did, did, "", now)
	if err != nil {
		t.Fatal(err)
	}
	h, err := client.HTTPClient(client.Config{CAFile: caFile()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://shared."+domain()+"/"+holder+"/dcp/credentials", bytes.NewReader(raw(t, dcp.CredentialMessage{
		Head: dcp.NewHead(dcp.TypeCredentialMessage), IssuerPID: uuid.NewString(), HolderPID: request, Status: dcp.StatusIssued,
		Credentials: []dcp.CredentialContainer{{CredentialType: attestation, Payload: credential, Format: dcp.ProfileVC11}},
	})))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+authorization)
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode > http.StatusNoContent {
		var said bytes.Buffer
		_, _ = said.ReadFrom(resp.Body)
		t.Fatalf("the own wallet did not take the credential: %s %s", resp.Status, said.String())
	}
	awaitUntrusted(t, at, token, did)
}

// requestID finds the id of a wallet's request in its log; it is the wallet's secret from everybody but the issuer asked.
func requestID(t *testing.T, cs *kubernetes.Clientset, holder, issuer string) string {
	t.Helper()
	var found string
	eventually(t, "the wallet's request to "+issuer, func(ctx context.Context) (bool, string) {
		pods, err := cs.CoreV1().Pods(cellNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=wallet"})
		if err != nil {
			return false, err.Error()
		}
		for _, p := range pods.Items {
			log, err := cs.CoreV1().Pods(cellNamespace).GetLogs(p.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
			if err != nil {
				return false, err.Error()
			}
			lines := bufio.NewScanner(bytes.NewReader(log))
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				var entry struct {
					Participant string `json:"participant"`
					Request     string `json:"request"`
					Issuer      string `json:"issuer"`
				}
				if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Participant == holder && entry.Issuer == issuer && entry.Request != "" {
					found = entry.Request
				}
			}
		}
		return found != "", fmt.Sprintf("%d wallet pods do not mention it", len(pods.Items))
	})
	return found
}

// ownKey reads the private key of a participant's DID as its wallet does: from the Vault, with the wallet's service account.
func ownKey(t *testing.T, cs *kubernetes.Clientset, holder, did string) dcp.SigningKey {
	t.Helper()
	conn := connectorOfCell(t, cs)
	pods, err := cs.CoreV1().Pods(cellNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=wallet"})
	if err != nil || len(pods.Items) == 0 {
		t.Fatalf("no wallet: %v", err)
	}
	account := pods.Items[0].Spec.ServiceAccountName
	issued, err := cs.CoreV1().ServiceAccounts(cellNamespace).CreateToken(t.Context(), account, &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{Audiences: []string{conn.Spec.Vault.Auth.Audience}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ask := vaultAPI(t, conn.Spec.Vault)
	role, mount := conn.Spec.Vault.Auth.Roles.Wallet, conn.Spec.Vault.Auth.MountPath
	if role == "" {
		role = account
	}
	if mount == "" {
		mount = "kubernetes"
	}
	var login struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	ask(http.MethodPost, "auth/"+mount+"/login", "", map[string]string{"role": role, "jwt": issued.Status.Token}, &login)
	var secret struct {
		Data struct{ Data struct{ JWK string } }
	}
	const kid = "key-1"
	ask(http.MethodGet, conn.Spec.Vault.Mount+"/data/"+conn.Spec.Vault.Prefix+"/"+holder+"/keys/"+kid, login.Auth.ClientToken, nil, &secret)
	private, err := jwk.ParseKey([]byte(secret.Data.Data.JWK))
	if err != nil {
		t.Fatal("the key in the Vault is not a JWK")
	}
	return dcp.SigningKey{ID: did + "#" + kid, Private: private}
}

// vaultAPI calls the Vault that connectors use; into is nil where no answer is read.
func vaultAPI(t *testing.T, v edc.Vault) func(method, path, token string, body, into any) {
	t.Helper()
	u, err := url.Parse(v.Address)
	if err != nil {
		t.Fatal(err)
	}
	service, rest, _ := strings.Cut(u.Hostname(), ".")
	namespace, _, _ := strings.Cut(rest, ".")
	base := strings.Replace(forward(t, namespace, service, 8200), "http:", "https:", 1) + "/v1/"
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(v.CABundle))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return func(method, path, token string, body, into any) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(raw(t, body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Vault-Token", token)
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
			t.Fatalf("the Vault answered %s to %s", resp.Status, path)
		}
		if into == nil {
			return
		}
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Fatalf("the Vault's answer to %s: %v", path, err)
		}
	}
}

// connectorOfCell is the cell's one Connector.
func connectorOfCell(t *testing.T, cs *kubernetes.Clientset) *edc.Connector {
	t.Helper()
	var list edc.ConnectorList
	getInto(t, cs, "/apis/edc.kaphera.io/v1alpha1/namespaces/"+cellNamespace+"/connectors", &list)
	if len(list.Items) != 1 {
		t.Fatalf("%d connectors in the cell", len(list.Items))
	}
	return &list.Items[0]
}

func walletAPI(t *testing.T, cs *kubernetes.Clientset) (base, token string) {
	t.Helper()
	conn := connectorOfCell(t, cs)
	return internalAPI(t, cellNamespace, conn.Status.WalletURL, workload.Runtime{Name: conn.Name}.InternalSecret(workload.Wallet))
}

// stopOperator ends the EDC operator and returns what starts it again.
func stopOperator(t *testing.T, cs *kubernetes.Clientset) (restart func()) {
	t.Helper()
	scale := func(ctx context.Context, n int32) {
		t.Helper()
		replicas := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n)
		if _, err := cs.AppsV1().Deployments(ownSystem).Patch(ctx, "edc-operator", types.MergePatchType, replicas, metav1.PatchOptions{}, "scale"); err != nil {
			t.Errorf("scale the EDC operator to %d: %v", n, err)
		}
	}
	before, err := cs.AppsV1().Deployments(ownSystem).GetScale(t.Context(), "edc-operator", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scale(t.Context(), 0)
	// The Deployment does not count Pods that are still ending, and those still act.
	eventually(t, "the EDC operator stopped", func(ctx context.Context) (bool, string) {
		pods, err := cs.CoreV1().Pods(ownSystem).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=edc-operator"})
		if err != nil {
			return false, err.Error()
		}
		return len(pods.Items) == 0, fmt.Sprintf("%d pods", len(pods.Items))
	})
	return func() { scale(context.WithoutCancel(t.Context()), before.Spec.Replicas) }
}

// awaitUntrusted waits until the wallet holds the attestation of an issuer, and knows that it counts for nothing.
func awaitUntrusted(t *testing.T, participant, token, issuer string) {
	t.Helper()
	eventually(t, "an attestation by "+issuer, func(context.Context) (bool, string) {
		var held []adminapi.HeldCredential
		admin(t, http.MethodGet, participant+"/credentials", token, nil, &held)
		for _, h := range held {
			if h.Type == attestation && h.Issuer == issuer && h.ID != "" && h.State == adminapi.CredentialWrongIssuer {
				return true, ""
			}
		}
		return false, fmt.Sprintf("%+v", held)
	})
}

// admin calls an internal API, which has to succeed.
func admin(t *testing.T, method, address, token string, body, into any) {
	t.Helper()
	var sent []byte
	if body != nil {
		sent = raw(t, body)
	}
	status, answer := call(t, method, address, token, sent)
	if status < 200 || status > 299 {
		t.Fatalf("%s %s: %d %s", method, address, status, answer)
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatalf("%s: %v: %s", address, err, answer)
		}
	}
}

func raw(t *testing.T, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
