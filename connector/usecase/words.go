// SPDX-License-Identifier: Apache-2.0

package usecase

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
)

func said(lang, en, de string, args ...any) string {
	if lang == "de" {
		return fmt.Sprintf(de, args...)
	}
	return fmt.Sprintf(en, args...)
}

// Explain says a revision in plain words, all that its hash covers. lang is "en" or "de". The first sentence says which revision it is.
func Explain(c Content, lang string) ([]string, error) {
	ev, err := c.evaluator()
	if err != nil {
		return nil, err
	}
	out := []string{
		said(lang, "Revision %d of use case %s in dataspace %s", "Revision %d des Anwendungsfalls %s im Datenraum %s", c.Number, c.UseCase, c.Profile),
		said(lang, "It is for assets of type %s", "Er gilt für Assets vom Typ %s", c.AssetType),
	}
	if c.AccessPolicy == nil {
		out = append(out, said(lang, "Everybody in the dataspace sees the offer", "Alle im Datenraum sehen das Angebot"))
	} else if out, err = say(out, ev, c.AccessPolicy, lang, said(lang, "To see the offer: ", "Um das Angebot zu sehen: ")); err != nil {
		return nil, err
	}
	if out, err = say(out, ev, c.ContractPolicy, lang, said(lang, "Agreed by both: ", "Von beiden vereinbart: ")); err != nil {
		return nil, err
	}
	for _, g := range c.Gates {
		out = append(out, g.words(lang))
		if g.Policy != nil {
			if out, err = say(out, ev, g.Policy, lang, said(lang, "Gate %q holds until: ", "Prüfschritt „%s“ hält, bis gilt: ", g.Name)); err != nil {
				return nil, err
			}
		}
	}
	for _, o := range c.Operands {
		from := ""
		if o.Credential != "" {
			from = said(lang, " (%s)", " (%s)", o.Credential)
		}
		out = append(out, said(lang, "%s is read of the %s%s, as %s: %s; checked at: %s", "%s wird beim %s%s gelesen, als %s: %s; geprüft bei: %s",
			o.Name, o.Subject, from, o.ValueType, o.Expression, join(o.Phases)))
	}
	for _, d := range c.Duties {
		out = append(out, said(lang, "%s is fulfilled by the connector: %s", "%s erfüllt der Connector: %s", d.Name, string(d.Fulfilment)))
	}
	if len(c.Signers) == 0 {
		return append(out, said(lang, "The next revision takes effect without a sign-off", "Die nächste Revision gilt ohne Freigabe")), nil
	}
	return append(out, said(lang, "The next revision is signed off by one of: %s", "Die nächste Revision gibt frei, eines von: %s", People(c.Signers, lang))), nil
}

// evaluator knows the content's vocabulary and trusts nobody in particular: it evaluates nothing.
func (c *Content) evaluator() (*odrl.Evaluator, error) {
	p := profile.Profile{Name: c.Profile, Protocol: "dataspace-protocol-http:2025-1", Operands: c.Operands, Duties: c.Duties}
	trusted := profile.TrustedIssuer{DID: "did:web:anybody.invalid", Types: []string{"VerifiableCredential"}}
	for _, o := range c.Operands {
		if o.Credential != "" && !slices.Contains(trusted.Types, o.Credential) {
			trusted.Types = append(trusted.Types, o.Credential)
		}
	}
	p.TrustedIssuers = []profile.TrustedIssuer{trusted}
	return odrl.NewEvaluator(p)
}

func say(out []string, ev *odrl.Evaluator, raw []byte, lang, before string) ([]string, error) {
	p, err := odrl.Parse(raw)
	if err != nil {
		return nil, err
	}
	for _, s := range ev.Sentences(p, lang) {
		out = append(out, before+s)
	}
	return out, nil
}

func (g *Gate) words(lang string) string {
	var what string
	switch {
	case g.Webhook != nil:
		key, _, err := gate.PublicKey(g.Webhook.PublicKey)
		if err != nil {
			key = Hash(string(g.Webhook.PublicKey))
		}
		what = said(lang, "system %s of %s decides at %s, with key %s", "System %s von %s entscheidet unter %s, mit Schlüssel %s", g.Webhook.System, g.Webhook.Organization, g.Webhook.URL, key)
	case g.Policy != nil:
		what = said(lang, "a credential must be there", "ein Nachweis muss vorliegen")
	default:
		what = said(lang, "%d of these approve: %s", "%d von diesen stimmen zu: %s", g.Required, People(g.Approvers, lang))
		if g.Organizations > 1 {
			what += said(lang, ", from at least %d organizations", ", aus mindestens %d Organisationen", g.Organizations)
		}
	}
	if len(g.TriggeredBy) > 0 {
		what += said(lang, "; one of these lets it pass by hand: %s", "; eines von diesen löst ihn von Hand aus: %s", People(g.TriggeredBy, lang))
	}
	return said(lang, "Gate %q before %s, at most %s: %s", "Prüfschritt „%s“ vor %s, höchstens %s: %s", g.Name, g.Before, g.Deadline, what)
}

// People names people in words.
func People(all []Person, lang string) string {
	out := make([]string, len(all))
	for i, p := range all {
		switch {
		case p.Person != "":
			out[i] = p.Person
		case p.Organization != "":
			out[i] = said(lang, "everybody with the role %s in %s", "alle mit der Rolle %s in %s", p.Role, p.Organization)
		default:
			out[i] = said(lang, "everybody with the role %s", "alle mit der Rolle %s", p.Role)
		}
	}
	return strings.Join(out, ", ")
}

func join[S ~string](all []S) string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = string(s)
	}
	return strings.Join(out, ", ")
}

// ReadHash is what a sign-off names as read: SHA-256 (hex) of an explanation.
func ReadHash(explanation []string) string { return Hash(strings.Join(explanation, "\n")) }

// Diff are the sentences that one explanation has and the other has not, in their order; which revision they are of is left out.
func Diff(before, after []string) (gone, come []string) {
	only := func(a, b []string) (out []string) {
		for _, s := range a[min(1, len(a)):] {
			if !slices.Contains(b, s) {
				out = append(out, s)
			}
		}
		return out
	}
	return only(before, after), only(after, before)
}
