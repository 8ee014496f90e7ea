// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/profile"
)

func (ev *evaluation) say(en, de string) string {
	if ev.lang == "de" {
		return de
	}
	return en
}

// valueError says in both languages why a value can't be compared.
type valueError struct{ en, de string }

func (e *valueError) Error() string { return e.en }

// sayError says an error in words; one that has none in German is left out there.
func (ev *evaluation) sayError(en, de string, err error) string {
	var v *valueError
	if ev.lang != "de" {
		return en + ": " + err.Error()
	}
	if errors.As(err, &v) {
		return de + ": " + v.de
	}
	return de
}

func (ev *evaluation) sayf(en, de string, args ...any) string {
	return fmt.Sprintf(ev.say(en, de), args...)
}

const codeWrongIssuer = "wrong-issuer"

// refusals are the plain words for identity.Refusal codes: %[1]s type, %[2]s issuer, %[3]s who is trusted for the type.
var refusals = map[string][2]string{
	"expired":            {"the %[1]s issued by %[2]s has expired", "%[1]s von %[2]s ist abgelaufen"},
	"not-yet-valid":      {"the %[1]s issued by %[2]s is not valid yet", "%[1]s von %[2]s ist noch nicht gültig"},
	"revoked":            {"the %[1]s has been revoked by its issuer %[2]s", "%[1]s wurde vom Aussteller %[2]s widerrufen"},
	"suspended":          {"the %[1]s has been suspended by its issuer %[2]s", "%[1]s wurde vom Aussteller %[2]s ausgesetzt"},
	codeWrongIssuer:      {"the %[1]s was issued by %[2]s, which the dataspace profile does not trust for it; trusted: %[3]s", "%[1]s stammt von %[2]s, dem das Datenraumprofil dafür nicht vertraut; vertraut wird: %[3]s"},
	"bad-signature":      {"the signature of the %[1]s by %[2]s is not valid", "die Signatur von %[1]s durch %[2]s ist ungültig"},
	"holder-mismatch":    {"the %[1]s by %[2]s was issued to somebody else", "%[1]s von %[2]s wurde für jemand anderen ausgestellt"},
	"schema":             {"the %[1]s by %[2]s does not follow its schema", "%[1]s von %[2]s entspricht nicht seinem Schema"},
	"unreachable":        {"the %[1]s by %[2]s could not be checked now, since its issuer is not reached", "%[1]s von %[2]s war jetzt nicht prüfbar, weil der Aussteller nicht erreichbar ist"},
	"status-unavailable": {"whether the %[1]s by %[2]s is revoked could not be found out", "ob %[1]s von %[2]s widerrufen ist, war nicht feststellbar"},
}

// missing says why no credential of a type counts.
func (ev *evaluation) missing(credentialType, party string, refused []identity.Refusal) string {
	for _, r := range refused {
		if r.Type != credentialType {
			continue
		}
		out := r.Reason
		if words, ok := refusals[r.Code]; ok {
			out = fmt.Sprintf(ev.say(words[0], words[1]), r.Type, r.Issuer, strings.Join(ev.trusted(credentialType), ", "))
			// What the verifier found out is English, and says no more than the words about an issuer.
			if r.Reason != "" && ev.lang != "de" && r.Code != codeWrongIssuer {
				out += " (" + r.Reason + ")"
			}
		}
		if out == "" || ev.lang == "de" && out == r.Reason {
			out = ev.sayf("the %s of %s does not count (%s)", "%s von %s zählt nicht (%s)", r.Type, r.Issuer, r.Code)
		}
		return out
	}
	return ev.sayf("%s presented no %s", "%s hat kein %s vorgelegt", party, credentialType)
}

// obtain says what to do about a credential that is missing.
func (ev *evaluation) obtain(credentialType string) string {
	return ev.sayf("Request a current %s from %s", "Ein aktuelles %s bei %s anfordern", credentialType, strings.Join(ev.trusted(credentialType), " / "))
}

// trusted names the issuers that the profile trusts for a type.
func (ev *evaluation) trusted(credentialType string) []string {
	var issuers []string
	for _, t := range ev.profile.TrustedIssuers {
		if slices.Contains(t.Types, credentialType) {
			issuers = append(issuers, t.DID)
		}
	}
	return issuers
}

// unseen says why an expression yielded nothing.
func (ev *evaluation) unseen(err error, credentialType string) string {
	if _, key, ok := strings.Cut(err.Error(), "no such key: "); ok {
		if credentialType != "" {
			return ev.sayf("the %s has no claim %s", "%s hat keine Angabe %s", credentialType, key)
		}
		return ev.sayf("%s was not stated", "%s wurde nicht angegeben", key)
	}
	return ev.sayError("the value could not be evaluated", "der Wert war nicht auswertbar", err)
}

func (ev *evaluation) mismatch(t profile.ValueType, c Constraint, s seen) string {
	if t == profile.ValueAge {
		if d, err := ParseDuration(c.Right.Values[0]); err == nil {
			until := d.After(s.time).Format(time.RFC3339)
			if c.Operator == "lt" || c.Operator == "lteq" {
				return ev.sayf("seen %s, which counted until %s", "gesehen %s, das galt bis %s", s.text, until)
			}
			return ev.sayf("seen %s, which counts only after %s", "gesehen %s, das gilt erst nach %s", s.text, until)
		}
	}
	shown := s.text
	if shown == "" {
		shown = ev.say("nothing", "nichts")
	}
	return ev.sayf("seen %s, needed %s %s", "gesehen %s, nötig: %s %s", shown, operatorWords(c.Operator, ev.lang), strings.Join(c.Right.Values, ", "))
}

func operatorWords(op, lang string) string {
	words := map[string][2]string{"eq": {"exactly", "genau"}, "neq": {"anything but", "nicht"}, "gt": {"more than", "mehr als"}, "gteq": {"at least", "mindestens"},
		"lt": {"less than", "weniger als"}, "lteq": {"at most", "höchstens"}, "isAnyOf": {"one of", "eines von"}, "isNoneOf": {"none of", "keines von"},
		"isAllOf": {"all of", "alle von"}, "hasPart": {"all of", "alle von"}, "isPartOf": {"only from", "nur aus"}, "isA": {"a", "ein"}}
	w, ok := words[op]
	if !ok {
		return op
	}
	if lang == "de" {
		return w[1]
	}
	return w[0]
}

func translated(t profile.Translation, lang string) string {
	if lang == "de" && t.DE != "" {
		return t.DE
	}
	return t.EN
}

// fill puts the right operand and the value seen into a sentence.
func fill(template string, c Constraint, value string, t profile.ValueType, lang string) string {
	words := make([]string, len(c.Right.Values))
	for i, v := range c.Right.Values {
		words[i] = v
		if d, err := ParseDuration(v); err == nil && t == profile.ValueAge {
			words[i] = d.Words(lang)
		}
	}
	return strings.NewReplacer("{right}", strings.Join(words, ", "), "{value}", value).Replace(template)
}

func sentence(o profile.Operand, c Constraint, value, lang string) string {
	return fill(translated(o.Sentence, lang), c, value, o.ValueType, lang)
}

// Sentences says a policy in plain words, one sentence for each thing that has to hold. lang is "en" or "de".
func (e *Evaluator) Sentences(p *Policy, lang string) []string {
	ev := &evaluation{Evaluator: e, lang: lang}
	out := ev.permitted(p.Permissions)
	if len(p.Permissions) == 0 {
		out = append(out, ev.say("nothing is permitted", "nichts ist erlaubt"))
	}
	return append(append(out, ev.prohibited(p.Prohibitions)...), ev.duties(p.Obligations)...)
}

func (ev *evaluation) permitted(rules []Rule) []string {
	var out []string
	for i, r := range rules {
		if i > 0 {
			out = append(out, ev.say("or, instead:", "oder stattdessen:"))
		}
		if len(r.Constraints)+len(r.Duties) == 0 {
			out = append(out, ev.say("use is permitted without condition", "die Nutzung ist ohne Bedingung erlaubt"))
		}
		out = append(out, ev.sentences(r.Constraints)...)
		out = append(out, ev.duties(r.Duties)...)
	}
	return out
}

func (ev *evaluation) prohibited(rules []Rule) []string {
	var out []string
	for _, r := range rules {
		if len(r.Constraints) == 0 {
			out = append(out, ev.say("prohibited: ", "verboten: ")+join(r.Actions))
			continue
		}
		out = append(out, ev.say("prohibited when: ", "verboten, wenn: ")+joined(ev.sentences(r.Constraints), ev.say(" and ", " und ")))
	}
	return out
}

func (ev *evaluation) duties(rules []Rule) []string {
	var out []string
	for _, r := range rules {
		what := ev.sentences(r.Constraints)
		if d := ev.fulfilled(r); d != nil {
			what = append(what, translated(d.Sentence, ev.lang))
		} else if len(what) == 0 {
			what = r.Actions
		}
		out = append(out, ev.say("duty: ", "Pflicht: ")+joined(what, ev.say(" and ", " und ")))
	}
	return out
}

func (ev *evaluation) sentences(cs []Constraint) []string {
	var out []string
	for _, c := range cs {
		switch c.Logical {
		case "":
			if o := ev.lookup(c.Left); o != nil {
				out = append(out, sentence(o.Operand, c, "", ev.lang))
				continue
			}
			out = append(out, fmt.Sprintf("%s: %s %s", c.Left, operatorWords(c.Operator, ev.lang), strings.Join(c.Right.Values, ", ")))
		case "or":
			out = append(out, joined(ev.sentences(c.Of), ev.say(" or ", " oder ")))
		case "xone":
			out = append(out, ev.say("exactly one of: ", "genau eines von: ")+joined(ev.sentences(c.Of), "; "))
		default:
			out = append(out, ev.sentences(c.Of)...)
		}
	}
	return out
}

// joined makes one sentence of several.
func joined(sentences []string, word string) string {
	for i, s := range sentences[:max(0, len(sentences)-1)] {
		sentences[i] = strings.TrimSuffix(s, ".")
	}
	return strings.Join(sentences, word)
}

// Reason sums a denial up for people, in English or in German (lang "de"): every check that stands in the way with what was seen and what
// to do. Empty when allowed.
func Reason(t adminapi.Trace, lang string) string {
	if t.Allowed {
		return ""
	}
	ev := &evaluation{lang: lang}
	var out []string
	for _, c := range t.Checks {
		w := adminapi.CheckWords{Sentence: c.Sentence, Reason: c.Reason, Remedy: c.Remedy}
		if lang == "de" && c.DE != nil {
			w = *c.DE
		}
		if w.Reason == "" {
			continue
		}
		s := ev.say("not met: ", "nicht erfüllt: ") + strings.TrimSuffix(w.Sentence, ".") + ": " + strings.TrimSuffix(w.Reason, ".")
		if w.Remedy != "" {
			s += ". " + strings.TrimSuffix(w.Remedy, ".")
		}
		out = append(out, s)
	}
	return strings.Join(out, ". ")
}

// Withhold takes away what was seen of the credentials and the requests of others than the party own (DID), and leaves each verdict with its sentence. A
// sentence that names the value gives way to the constraint. What a missing credential is called is nothing that was seen.
func Withhold(t adminapi.Trace, own string) adminapi.Trace {
	t.Checks = slices.Clone(t.Checks)
	for i := range t.Checks {
		c := &t.Checks[i]
		if c.Party == "" || c.Party == own || c.CredentialType != "" && c.Credential == "" {
			continue
		}
		names := func(text string) bool {
			return c.Value != "" && strings.Contains(text, c.Value) && !strings.Contains(string(c.RightOperand), c.Value)
		}
		constraint := c.LeftOperand + " " + c.Operator + " " + string(c.RightOperand)
		withhold := func(w adminapi.CheckWords, because string) adminapi.CheckWords {
			if names(w.Sentence) {
				w.Sentence = constraint
			}
			if names(w.Remedy) {
				w.Remedy = ""
			}
			if w.Reason != "" {
				w.Reason = because
			}
			return w
		}
		w := withhold(adminapi.CheckWords{Sentence: c.Sentence, Reason: c.Reason, Remedy: c.Remedy}, "what was seen stays in the connector's cell")
		c.Sentence, c.Reason, c.Remedy = w.Sentence, w.Reason, w.Remedy
		if c.DE != nil {
			de := withhold(*c.DE, "was gesehen wurde, bleibt in der Zelle des Konnektors")
			c.DE = &de
		}
		c.Value, c.Credential = "", ""
	}
	return t
}
