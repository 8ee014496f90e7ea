// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaphera/kaphera/connector/adminapi"
)

// Object is a custom resource as the API shows and takes it. A writer sends spec, and revision when it wants to be told of changes that it
// has not seen; everything else is ignored on the way in, so that what was read can be sent back.
type Object[Spec, Status any] struct {
	Name       string   `json:"name,omitempty" doc:"Name; the path's counts when writing"`
	ManagedBy  string   `json:"managedBy,omitempty" doc:"Who manages the object: terraform, cli, console or api"`
	Revision   string   `json:"revision,omitempty" doc:"Changes whenever spec changes. When sent, a write succeeds only while it is still the newest"`
	Generation int64    `json:"generation,omitempty" doc:"Counts changes of spec; a condition in status counts when its observedGeneration is this one; read only"`
	Deleting   bool     `json:"deleting,omitempty" doc:"The object is being removed"`
	Spec       Spec     `json:"spec"`
	Status     Status   `json:"status,omitzero" doc:"What was observed; read only"`
	Warnings   []string `json:"warnings,omitempty" doc:"What was accepted but needs attention; read only"`
}

// List is one page. Next is the value of the parameter that asks for the page after it; empty on the last.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"Pass as 'after' (objects) or 'before' (a connector's records) to get the next page"`
}

// Info tells a client how to log in.
type Info struct {
	Issuer      string `json:"issuer" doc:"OpenID Connect issuer"`
	Audience    string `json:"audience"`
	CLIClientID string `json:"cliClientID" doc:"Public client for the device flow"`
	ConsoleURL  string `json:"consoleURL"`
	Version     string `json:"version"`
}

// OfferCreate makes an asset available under a use case's policies.
type OfferCreate struct {
	ID      string `json:"id,omitempty" doc:"Default: asset and use case, joined by --" maxLength:"200"`
	Asset   string `json:"asset" minLength:"1"`
	UseCase string `json:"useCase" minLength:"1"`
}

// OfferSend makes an offer to one consumer, which starts a negotiation.
type OfferSend struct {
	ID           string          `json:"id,omitempty" doc:"Idempotency key: the same id again answers the existing negotiation" maxLength:"100"`
	Counterparty string          `json:"counterparty" doc:"The consumer: name of a participant, or a DID" minLength:"1"`
	Asset        string          `json:"asset,omitempty" doc:"Default the only asset of the offer"`
	Policy       json.RawMessage `json:"policy,omitempty" doc:"Terms for this consumer (ODRL Set), in place of the offer's; its gates hold all the same"`
	Profile      string          `json:"profile,omitempty" doc:"One of the offer's dataspace profiles; default its first"`
}

// Partner is a participant of a dataspace as the others know it.
type Partner struct {
	Name         string `json:"name"`
	Organization string `json:"organization" doc:"The company, as people call it"`
	DID          string `json:"did"`
}

// CatalogItem is an offer of a counterparty. UseCase is set when its policy is the one of a use case known here; Revision is the newest with that policy.
type CatalogItem struct {
	adminapi.CatalogEntry
	UseCase  string `json:"useCase,omitempty"`
	Revision int    `json:"revision,omitempty"`
}

// NegotiationStart starts a negotiation.
type NegotiationStart struct {
	ID           string `json:"id,omitempty" doc:"Idempotency key: the same id again answers the existing negotiation" maxLength:"100"`
	Counterparty string `json:"counterparty" doc:"Name of a participant, or a DID" minLength:"1"`
	OfferID      string `json:"offerId" minLength:"1"`
	Profile      string `json:"profile,omitempty" doc:"The participant's dataspace profile in which the offer was found; default the first that both take part in"`
	Purpose      string `json:"purpose,omitempty" doc:"Purpose of use, which the offer must be for; empty: whichever it is for" maxLength:"500"`
}

// TerminationReason is told to the counterparty.
type TerminationReason struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500"`
}

// SuspensionReason is told to the counterparty.
type SuspensionReason struct {
	Reason string `json:"reason,omitempty" maxLength:"500"`
}

// TransferStart starts a transfer under an agreement.
type TransferStart struct {
	ID          string `json:"id,omitempty" doc:"Idempotency key: the same id again answers the existing transfer" maxLength:"100"`
	AgreementID string `json:"agreementId" minLength:"1"`
	Format      string `json:"format,omitempty" doc:"Default HttpData-PULL"`
}

var (
	packagePath = regexp.MustCompile(`[\w./-]+\.(\w+)`)
	objectOf    = regexp.MustCompile(`Object\[(\w+)Spec,\w+\]`)
	listOf      = regexp.MustCompile(`List\[(\w+)\]`)
)

// schemaName names Object[CellSpec,CellStatus] "Cell", List of it "CellList", and status.Report "StatusReport".
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if strings.HasSuffix(t.PkgPath(), "/cloud/status") {
		return "Status" + t.Name()
	}
	name := packagePath.ReplaceAllString(t.Name(), "$1")
	name = objectOf.ReplaceAllString(name, "$1")
	name = listOf.ReplaceAllString(name, "${1}List")
	if strings.ContainsAny(name, "[],") || name == "" {
		return huma.DefaultSchemaNamer(t, hint)
	}
	return name
}

// verbatim is JSON that passes through unchanged: a policy, claims, an operand's value.
type verbatim json.RawMessage

// Schema lets anything pass; generated clients keep it raw.
func (verbatim) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "Any JSON, kept as it is", Extensions: map[string]any{"x-go-type": "json.RawMessage"}}
}

func newRegistry() huma.Registry {
	r := huma.NewMapRegistry("#/components/schemas/", schemaName)
	r.RegisterTypeAlias(reflect.TypeFor[metav1.Time](), reflect.TypeFor[time.Time]())
	r.RegisterTypeAlias(reflect.TypeFor[apiextensionsv1.JSON](), reflect.TypeFor[verbatim]())
	r.RegisterTypeAlias(reflect.TypeFor[json.RawMessage](), reflect.TypeFor[verbatim]())
	return r
}
