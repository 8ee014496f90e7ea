// SPDX-License-Identifier: Apache-2.0

// Package wire reads and writes the messages of the Dataspace Protocol 2025-1 in the compact form that its JSON Schemas fix, with the
// variants that are documented for it. It knows neither states nor storage; what a policy means is connector/odrl's.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/dps"
	"github.com/kaphera/kaphera/connector/odrl"
)

// Constants of the protocol version spoken here.
const (
	Context  = "https://w3id.org/dspace/2025/1/context.jsonld"
	Version  = "2025-1"
	Protocol = "dataspace-protocol-http:2025-1"
)

// Message types (DSP 2025-1).
const (
	CatalogRequest         = "CatalogRequestMessage"
	ContractRequest        = "ContractRequestMessage"
	ContractOffer          = "ContractOfferMessage"
	ContractAgreement      = "ContractAgreementMessage"
	ContractVerification   = "ContractAgreementVerificationMessage"
	NegotiationEvent       = "ContractNegotiationEventMessage"
	NegotiationTermination = "ContractNegotiationTerminationMessage"
	TransferRequest        = "TransferRequestMessage"
	TransferStart          = "TransferStartMessage"
	TransferSuspension     = "TransferSuspensionMessage"
	TransferCompletion     = "TransferCompletionMessage"
	TransferTermination    = "TransferTerminationMessage"
	ContractNegotiation    = "ContractNegotiation"
	TransferProcess        = "TransferProcess"
	CatalogError           = "CatalogError"
	NegotiationError       = "ContractNegotiationError"
	TransferError          = "TransferError"
)

// Values of a negotiation event's eventType.
const (
	EventAccepted  = "ACCEPTED"
	EventFinalized = "FINALIZED"
)

const (
	maxDepth       = 48   // of a message
	maxText        = 2048 // bytes of an identifier or address
	maxReasons     = 100
	maxReasonBytes = 4096 // the rest of a longer one is cut
)

// Message is any message but a catalog. A type uses the members that its schema names.
type Message struct {
	Context         []string         `json:"@context"`
	Type            string           `json:"@type"`
	ID              string           `json:"@id,omitempty"` // not in the schemas; makes a repeat recognisable
	ProviderPID     string           `json:"providerPid,omitempty"`
	ConsumerPID     string           `json:"consumerPid,omitempty"`
	CallbackAddress string           `json:"callbackAddress,omitempty"`
	Offer           json.RawMessage  `json:"offer,omitempty"`
	Agreement       json.RawMessage  `json:"agreement,omitempty"`
	EventType       string           `json:"eventType,omitempty"`
	AgreementID     string           `json:"agreementId,omitempty"`
	Format          string           `json:"format,omitempty"`
	DataAddress     *dps.WireAddress `json:"dataAddress,omitempty"`
	State           string           `json:"state,omitempty"`
	Code            string           `json:"code,omitempty"`
	Reason          []string         `json:"reason,omitempty"`

	// Policy is Offer or Agreement, parsed; Timestamp is the agreement's. Set by Parse.
	Policy    *odrl.Policy      `json:"-"`
	Timestamp string            `json:"-"`
	Filter    []json.RawMessage `json:"-"`
}

// Error is what is wrong with a message, and where.
type Error struct {
	Path    string // JSON path
	Message string
}

func (e *Error) Error() string { return e.Path + ": " + e.Message }

func errorf(path, format string, args ...any) error {
	return &Error{Path: path, Message: fmt.Sprintf(format, args...)}
}

// New makes a message of ours.
func New(messageType, id string) *Message {
	return &Message{Context: []string{Context}, Type: messageType, ID: id}
}

// schema is what a message type requires and allows; members it does not name are ignored, as JSON-LD would.
type schema struct {
	required, optional []string
	oneOf              [2]string // exactly one of these
}

var pids = []string{"providerPid", "consumerPid"}

var schemas = map[string]schema{
	CatalogRequest:         {optional: []string{"filter"}},
	ContractRequest:        {required: []string{"consumerPid", "offer"}, oneOf: [2]string{"callbackAddress", "providerPid"}},
	ContractOffer:          {required: []string{"providerPid", "offer"}, oneOf: [2]string{"callbackAddress", "consumerPid"}},
	ContractAgreement:      {required: append([]string{"agreement"}, pids...)},
	ContractVerification:   {required: pids},
	NegotiationEvent:       {required: append([]string{"eventType"}, pids...)},
	NegotiationTermination: {required: pids, optional: []string{"code", "reason"}},
	TransferRequest:        {required: []string{"consumerPid", "agreementId", "format", "callbackAddress"}, optional: []string{"dataAddress"}},
	TransferStart:          {required: pids, optional: []string{"dataAddress"}},
	TransferSuspension:     {required: pids, optional: []string{"code", "reason"}},
	TransferCompletion:     {required: pids},
	TransferTermination:    {required: pids, optional: []string{"code", "reason"}},
	ContractNegotiation:    {required: append([]string{"state"}, pids...)},
	TransferProcess:        {required: append([]string{"state"}, pids...)},
	NegotiationError:       {optional: []string{"code", "reason"}}, // its process ids may be empty, and nobody needs them
	TransferError:          {optional: []string{"code", "reason"}},
	CatalogError:           {optional: []string{"code", "reason"}},
}

// Parse reads a message that must be of one of the given types. Errors are *Error.
func Parse(raw []byte, types ...string) (*Message, error) {
	members, err := object(raw)
	if err != nil {
		return nil, err
	}
	if err := checkContext(members["@context"]); err != nil {
		return nil, err
	}
	m := &Message{Context: []string{Context}}
	if err := m.read("@type", members["@type"]); err != nil {
		return nil, err
	}
	if !slices.Contains(types, m.Type) {
		return nil, errorf("$.@type", "is %q, want %s", m.Type, strings.Join(types, " or "))
	}
	s := schemas[m.Type]
	if id, ok := members["@id"]; ok {
		if err := m.read("@id", id); err != nil {
			return nil, err
		}
	}
	names := append(slices.Clone(s.required), s.optional...)
	if a, b := s.oneOf[0], s.oneOf[1]; a != "" {
		_, hasA := members[a]
		_, hasB := members[b]
		if hasA == hasB {
			return nil, errorf("$", "a %s has exactly one of %s and %s", m.Type, a, b)
		}
		names = append(names, a, b)
	}
	for _, name := range names {
		value, ok := members[name]
		if !ok {
			if slices.Contains(s.required, name) {
				return nil, errorf("$."+name, "missing in a %s", m.Type)
			}
			continue
		}
		if err := m.read(name, value); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// object splits a JSON object into its members, within the depth that is read at all.
func object(raw []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	for depth := 0; ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errorf("$", "not valid JSON: %v", err)
		}
		if s, ok := token.(string); ok && strings.ContainsRune(s, 0) {
			return nil, errorf("$", "contains the character U+0000")
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxDepth {
				return nil, errorf("$", "nested more than %d deep", maxDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, errorf("$", "must be one JSON object")
	}
	return members, nil
}

// checkContext: an array with the protocol's context, or that one as a string; further contexts do not matter to the compact form.
func checkContext(raw json.RawMessage) error {
	if raw == nil {
		return errorf("$.@context", "missing: it must contain %s", Context)
	}
	var list []any
	if raw[0] != '[' {
		raw = append(append([]byte{'['}, raw...), ']')
	}
	if err := json.Unmarshal(raw, &list); err != nil || !slices.Contains(list, any(Context)) {
		return errorf("$.@context", "must contain %s", Context)
	}
	return nil
}

func (m *Message) read(name string, raw json.RawMessage) (err error) {
	path := "$." + name
	switch name {
	case "@type":
		m.Type, err = text(path, raw)
	case "@id":
		m.ID, err = text(path, raw)
	case "providerPid":
		m.ProviderPID, err = text(path, raw)
	case "consumerPid":
		m.ConsumerPID, err = text(path, raw)
	case "callbackAddress":
		m.CallbackAddress, err = text(path, raw)
	case "agreementId":
		m.AgreementID, err = text(path, raw)
	case "format":
		m.Format, err = text(path, raw)
	case "code":
		m.Code, err = text(path, raw)
	case "state":
		m.State, err = text(path, raw)
	case "eventType":
		if m.EventType, err = text(path, raw); err == nil && m.EventType != EventAccepted && m.EventType != EventFinalized {
			err = errorf(path, "is %q, want %s or %s", m.EventType, EventAccepted, EventFinalized)
		}
	case "offer":
		m.Offer, err = raw, m.readPolicy(path, raw, "Offer")
	case "agreement":
		m.Agreement, err = raw, m.readPolicy(path, raw, "Agreement")
	case "reason":
		m.Reason, err = reasons(path, raw)
	case "filter":
		m.Filter = many(raw)
	case "dataAddress":
		m.DataAddress = &dps.WireAddress{}
		if e := json.Unmarshal(raw, m.DataAddress); e != nil {
			err = errorf(path, "%v", e)
		}
	}
	return err
}

func (m *Message) readPolicy(path string, raw json.RawMessage, kind string) error {
	p, err := odrl.Parse(raw)
	if err != nil {
		var oe *odrl.Error
		if errors.As(err, &oe) {
			return errorf(path+strings.TrimPrefix(oe.Path, "$"), "%s", oe.Message)
		}
		return errorf(path, "%v", err)
	}
	if p.Kind != kind {
		return errorf(path+".@type", "is %q, want %q", p.Kind, kind)
	}
	need := map[string]string{"@id": p.ID}
	if kind == "Agreement" {
		need["target"], need["assigner"], need["assignee"] = p.Target, p.Assigner, p.Assignee
		if len(p.Permissions)+len(p.Prohibitions) == 0 {
			return errorf(path, "has neither permission nor prohibition")
		}
		var t struct {
			Timestamp json.RawMessage `json:"timestamp"`
		}
		_ = json.Unmarshal(raw, &t) // odrl.Parse has read it as an object
		if m.Timestamp, err = text(path+".timestamp", t.Timestamp); err != nil {
			return err
		}
		if !strings.Contains(m.Timestamp, "T") {
			return errorf(path+".timestamp", "%q is not an xsd:dateTime", m.Timestamp)
		}
	}
	if m.Type == ContractOffer {
		need["target"] = p.Target
	}
	for _, name := range []string{"@id", "target", "assigner", "assignee"} {
		if value, ok := need[name]; ok && value == "" {
			return errorf(path+"."+name, "missing in the %s of a %s", strings.ToLower(kind), m.Type)
		}
	}
	m.Policy = p
	return nil
}

// text reads a non-empty string of bounded length.
func text(path string, raw json.RawMessage) (string, error) {
	var s *string
	if err := json.Unmarshal(raw, &s); raw == nil || err != nil || s == nil {
		return "", errorf(path, "must be a string")
	}
	if *s == "" || len(*s) > maxText {
		return "", errorf(path, "must have 1 to %d bytes", maxText)
	}
	return *s, nil
}

// reasons reads an array of strings or of language-tagged strings.
func reasons(path string, raw json.RawMessage) ([]string, error) {
	items := many(raw)
	if len(items) == 0 || len(items) > maxReasons {
		return nil, errorf(path, "must have 1 to %d items", maxReasons)
	}
	var out []string
	for i, item := range items {
		var s string
		var tagged struct {
			Value string `json:"@value"`
		}
		if json.Unmarshal(item, &s) != nil {
			if json.Unmarshal(item, &tagged) != nil || tagged.Value == "" {
				return nil, errorf(fmt.Sprintf("%s[%d]", path, i), "must be a string or an object with @value")
			}
			s = tagged.Value
		}
		out = append(out, s[:min(len(s), maxReasonBytes)])
	}
	return out, nil
}

// many reads an array, or a single value as an array of one.
func many(raw json.RawMessage) []json.RawMessage {
	var items []json.RawMessage
	if json.Unmarshal(raw, &items) == nil {
		return items
	}
	return []json.RawMessage{raw}
}
