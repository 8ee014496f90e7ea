// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/identity"
	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"
)

// policyFile is a policy with what it is judged by.
type policyFile struct {
	policy    *odrl.Policy
	evaluator *odrl.Evaluator
	access    bool // an access policy: who sees the offer
}

// policyFlags say which profile a policy is judged by, and as what.
type policyFlags struct {
	profile, file string
	access        bool
}

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "Check a policy, say what it demands, try it", Args: cobra.NoArgs,
		Long: "Works on ODRL policies in files (JSON or YAML; - is the standard input), as contract policies or, with --access-policy, as access policies.\n" +
			"The dataspace profile, which declares the vocabulary, is read from the Cloud API (--profile NAME) or from a file (--profile-file FILE:\n" +
			"the profile as \"kaphera get profile NAME -o json\" prints it, or as connectors have it).",
	}
	cmd.AddCommand(a.policyLintCommand(), a.policyExplainCommand(), a.policyTestCommand())
	return cmd
}

func (f *policyFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.profile, "profile", "", "dataspace profile at the Cloud API")
	cmd.Flags().StringVar(&f.file, "profile-file", "", "file of the dataspace profile")
	cmd.Flags().BoolVar(&f.access, "access-policy", false, "the file is an access policy: it decides who sees the offer")
	cmd.MarkFlagsMutuallyExclusive("profile", "profile-file")
	cmd.MarkFlagsOneRequired("profile", "profile-file")
}

// fault is one thing that is wrong with a policy.
type fault struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

func (a *app) policyLintCommand() *cobra.Command {
	var f policyFlags
	cmd := &cobra.Command{
		Use: "lint FILE", Short: "Say what is wrong with a policy, each fault with its place", Args: cobra.ExactArgs(1),
		Long:    "Checks a policy as a connector does when it is written: form, vocabulary, operators, types, phases, duties, and whether anybody can satisfy it at all.\nExit code 0 when nothing is wrong, 1 otherwise.",
		Example: "  kaphera policy lint recall.json --profile automotive\n  kaphera policy lint recall.json --profile-file profile.yaml -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := a.readPolicy(cmd.Context(), args[0], f)
			faults := faultsOf(err)
			if err != nil && faults == nil {
				return err
			}
			if done, err := a.structured(struct {
				Valid  bool    `json:"valid"`
				Faults []fault `json:"faults"`
			}{len(faults) == 0, append([]fault{}, faults...)}); err != nil {
				return err
			} else if !done {
				for _, x := range faults {
					fprintf(a.out, "%s  %s\n", a.style(a.out).bad(x.Path), x.Message)
				}
			}
			if len(faults) > 0 {
				return fail(ExitFailed, "correct what is named and check again", "%s: %s", args[0], count(len(faults), "fault"))
			}
			if a.output == "table" || a.output == "wide" {
				a.say("%s: nothing is wrong", args[0])
			}
			return nil
		},
	}
	f.register(cmd)
	return cmd
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) policyExplainCommand() *cobra.Command {
	var f policyFlags
	var lang string
	cmd := &cobra.Command{
		Use: "explain FILE", Short: "Say in plain words what a policy demands, of whom and when", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if lang != "en" && lang != "de" {
				return usage("--lang %q: en or de", lang)
			}
			p, err := a.readPolicy(cmd.Context(), args[0], f)
			if err != nil {
				return err
			}
			x := p.evaluator.Explain(p.policy, lang)
			if f.access {
				x = p.evaluator.ExplainAccess(p.policy, lang)
			}
			if done, err := a.structured(x); done {
				return err
			}
			a.printExplanation(x, lang)
			return nil
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&lang, "lang", "en", "language: en or de")
	return cmd
}

// explainWords are the headings of an explanation.
var explainWords = map[string]map[string]string{
	"en": {
		"whole": "What it demands:", "when": "When it is checked, and on whom:", "purposes": "Purposes of use:", "proofs": "Credentials that have to be presented:",
		"provider": "provider", "consumer": "consumer", "catalog": "offering and catalog", "negotiation": "negotiation", "transfer": "start of a transfer", "access": "each access to the data",
	},
	"de": {
		"whole": "Was sie verlangt:", "when": "Wann es geprüft wird, und bei wem:", "purposes": "Nutzungszwecke:", "proofs": "Vorzulegende Nachweise:",
		"provider": "Anbieter", "consumer": "Datenempfänger", "catalog": "Angebot und Katalog", "negotiation": "Verhandlung", "transfer": "Beginn einer Übertragung", "access": "jeder Zugriff auf die Daten",
	},
}

func (a *app) printExplanation(x odrl.Explanation, lang string) {
	s, words := a.style(a.out), explainWords[lang]
	fprintln(a.out, s.bold(words["whole"]))
	for _, line := range x.Sentences {
		fprintln(a.out, "  - "+line)
	}
	if len(x.Phases) > 0 {
		fprintln(a.out, "\n"+s.bold(words["when"]))
	}
	for _, ph := range x.Phases {
		fprintln(a.out, "  "+words[string(ph.Phase)])
		for _, party := range []struct {
			name  string
			lines []string
		}{{"provider", ph.Provider}, {"consumer", ph.Consumer}} {
			for _, line := range party.lines {
				fprintf(a.out, "    %s  %s\n", s.faint(words[party.name]+":"), line)
			}
		}
	}
	if len(x.Purposes) > 0 {
		fprintln(a.out, "\n"+s.bold(words["purposes"])+" "+strings.Join(x.Purposes, ", "))
	}
	if len(x.Credentials) > 0 {
		fprintln(a.out, "\n"+s.bold(words["proofs"]))
	}
	for _, subject := range []profile.Subject{profile.SubjectProvider, profile.SubjectConsumer} {
		if types := x.Credentials[subject]; len(types) > 0 {
			fprintf(a.out, "  %s %s\n", s.faint(words[string(subject)]+":"), strings.Join(types, ", "))
		}
	}
}

// situation is what a policy is tried in.
type situation struct {
	credentials, now, as, purpose, method, path string
	phases                                      []string
	// of a live test
	live     bool
	cell     string
	patience time.Duration
}

func (a *app) policyTestCommand() *cobra.Command {
	var f policyFlags
	var in situation
	cmd := &cobra.Command{
		Use: "test FILE --credentials FILE", Short: "Evaluate a policy on given credentials, phase by phase", Args: cobra.ExactArgs(1),
		Long: "Evaluates a policy as a connector does, on the credentials in a file, and prints each constraint with the value seen and the verdict.\n" +
			"Exit code 0 when every phase allows, 3 when one denies.\n\n" +
			"With --live it does not evaluate here: two participants made for the test get the credentials of the file from the dataspace's issuers, on the cell given,\n" +
			"really negotiate the policy and start a transfer under it, and are removed with all that was made. The file names the parties and what they hold:\n" +
			"  {\"provider\": {\"id\": \"did:web:…\", \"credentials\": [{\"type\": \"…\", \"issuer\": \"did:web:…\", \"claims\": {…}, \"validFrom\": \"2026-01-01T00:00:00Z\"}]},\n   \"consumer\": {…}}",
		Example: "  kaphera policy test pcf.json --profile automotive --credentials parties.json\n  kaphera policy test pcf.json --profile automotive --credentials parties.json --as provider --now 2027-06-01T00:00:00Z",
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.readPolicy(cmd.Context(), args[0], f)
			if err != nil {
				return err
			}
			if in.live {
				return a.live(cmd.Context(), p, f, in)
			}
			traces, err := a.tryPolicy(cmd.Context(), p, in)
			if err != nil {
				return err
			}
			return a.printTraces(args[0], traces)
		},
	}
	f.register(cmd)
	fl := cmd.Flags()
	fl.StringVar(&in.credentials, "credentials", "", "file of the parties and their credentials")
	fl.StringVar(&in.now, "now", "", "time of the evaluation, such as 2026-12-31T12:00:00Z (default: now)")
	fl.StringVar(&in.as, "as", "", "only what is asked of this party: consumer or provider (default: both)")
	fl.StringSliceVar(&in.phases, "phase", nil, "only these phases: catalog, negotiation, transfer, access (default: all)")
	fl.StringVar(&in.purpose, "purpose", "", "purpose of use that the consumer states (default: those of the policy)")
	fl.StringVar(&in.method, "method", "GET", "HTTP method of the access to the data")
	fl.StringVar(&in.path, "path", "", "path of the access, beneath the asset's address")
	fl.BoolVar(&in.live, "live", false, "negotiate it between two participants made for the test")
	fl.StringVar(&in.cell, "cell", "", "cell on which they run, with --live")
	fl.DurationVar(&in.patience, "timeout", 3*time.Minute, "how long to wait for a participant or a negotiation, with --live")
	_ = cmd.MarkFlagRequired("credentials") // the flag exists
	cmd.MarkFlagsRequiredTogether("live", "cell")
	for _, other := range []string{"now", "as", "phase", "method", "path", "profile-file"} {
		cmd.MarkFlagsMutuallyExclusive("live", other)
	}
	return cmd
}

// printTraces prints evaluations; a denial among them is an error.
func (a *app) printTraces(name string, traces []adminapi.Trace) error {
	done, err := a.structured(traces)
	if err != nil {
		return err
	}
	var denied []string
	for _, t := range traces {
		if !t.Allowed {
			denied = append(denied, string(t.Phase))
		}
		if done {
			continue
		}
		verdict := a.style(a.out).good("allowed")
		if !t.Allowed {
			verdict = a.style(a.out).bad("denied")
		}
		fprintf(a.out, "%s: %s\n", t.Phase, verdict)
		shown, err := convert[client.Trace](t)
		if err != nil {
			return err
		}
		a.printTrace(a.out, shown)
	}
	if len(denied) > 0 {
		return fail(ExitRefused, "", "%s denies: %s", name, strings.Join(denied, ", "))
	}
	return nil
}

// convert takes a value from one type to another of the same JSON form.
func convert[T any](v any) (out T, err error) {
	raw, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	return out, err
}

func (a *app) tryPolicy(ctx context.Context, p policyFile, in situation) ([]adminapi.Trace, error) {
	req := odrl.Request{Policy: p.policy, Now: a.now(), Request: map[string]string{"method": in.method, "path": in.path}}
	parties, err := a.readParties(in.credentials)
	if err != nil {
		return nil, err
	}
	if in.now != "" {
		if req.Now, err = time.Parse(time.RFC3339, in.now); err != nil {
			return nil, usage("--now %q: a time like 2026-12-31T12:00:00Z", in.now)
		}
	}
	req.Provider, req.Consumer = parties.Provider.agent(), parties.Consumer.agent()
	if in.purpose != "" {
		req.Purposes = []string{in.purpose}
	}
	phases := []profile.Phase{profile.PhaseCatalog, profile.PhaseNegotiation, profile.PhaseTransfer, profile.PhaseAccess}
	if p.access {
		phases = phases[:1] // and nowhere else
	}
	for _, wanted := range in.phases {
		if !slices.Contains(phases, profile.Phase(wanted)) {
			return nil, usage("--phase %q: nothing is evaluated then; one of %v", wanted, phases)
		}
	}
	var asked []profile.Subject
	switch in.as {
	case "":
	case string(profile.SubjectConsumer), string(profile.SubjectProvider):
		asked = []profile.Subject{profile.Subject(in.as)}
	default:
		return nil, usage("--as %q: consumer or provider", in.as)
	}
	var out []adminapi.Trace
	for _, phase := range phases {
		if len(in.phases) > 0 && !slices.Contains(in.phases, string(phase)) {
			continue
		}
		req.Phase, req.Subjects = phase, asked
		if phase == profile.PhaseCatalog { // whose business the policy is then
			of := profile.SubjectProvider
			if p.access {
				of = profile.SubjectConsumer
			}
			if asked != nil && asked[0] != of {
				continue
			}
			req.Subjects = []profile.Subject{of}
		}
		if phase == profile.PhaseTransfer {
			req.Agreement = map[string]any{"id": "agreement", "assetId": "asset", "createdAt": req.Now}
		}
		out = append(out, p.evaluator.Evaluate(ctx, req))
	}
	return out, nil
}

// parties are both sides of a negotiation.
type parties struct {
	Provider *party `json:"provider"`
	Consumer *party `json:"consumer"`
}

func (a *app) readParties(file string) (out parties, err error) {
	return out, a.readDocument(file, &out)
}

// party is one side with what it holds.
type party struct {
	ID          string `json:"id"`
	Credentials []struct {
		ID         string         `json:"id"`
		Type       string         `json:"type"`
		Issuer     string         `json:"issuer"`
		Claims     map[string]any `json:"claims"`
		ValidFrom  time.Time      `json:"validFrom"`
		ValidUntil time.Time      `json:"validUntil"`
	} `json:"credentials"`
}

func (p *party) agent() *identity.Agent {
	if p == nil {
		return nil
	}
	out := &identity.Agent{ID: p.ID}
	for _, c := range p.Credentials {
		out.Credentials = append(out.Credentials, identity.Credential{ID: c.ID, Type: c.Type, Issuer: c.Issuer, Subject: c.Claims, ValidFrom: c.ValidFrom, ValidUntil: c.ValidUntil})
	}
	return out
}

// readPolicy reads a policy and the profile, and checks both. What is wrong with the policy is an error of *odrl.Error.
func (a *app) readPolicy(ctx context.Context, file string, f policyFlags) (policyFile, error) {
	out := policyFile{access: f.access}
	prof, err := a.profile(ctx, f)
	if err != nil {
		return out, err
	}
	if out.evaluator, err = odrl.NewEvaluator(prof); err != nil {
		return out, fail(ExitFailed, "correct the profile first", "the dataspace profile %s is not valid: %v", prof.Name, err)
	}
	var raw json.RawMessage
	if err := a.readDocument(file, &raw); err != nil {
		return out, err
	}
	if out.policy, err = odrl.Parse(raw); err != nil {
		return out, err
	}
	if f.access {
		return out, out.evaluator.CheckAccess(out.policy)
	}
	return out, out.evaluator.Check(out.policy)
}

// faultsOf lists what is wrong with a policy; nil when err is about something else.
func faultsOf(err error) (out []fault) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			out = append(out, faultsOf(e)...)
		}
		return out
	}
	var x *odrl.Error
	if errors.As(err, &x) {
		out = append(out, fault{x.Path, x.Message})
	}
	return out
}

// profile reads the dataspace profile that the flags name.
func (a *app) profile(ctx context.Context, f policyFlags) (profile.Profile, error) {
	if f.file != "" {
		return a.profileFile(f.file)
	}
	c, err := a.client()
	if err != nil {
		return profile.Profile{}, err
	}
	r, err := c.GetDataspaceProfileWithResponse(ctx, f.profile)
	if err != nil {
		return profile.Profile{}, err
	}
	declared, err := convert[declaredProfile](r.JSON200)
	return declared.connector(), err
}

// declaredProfile is a dataspace profile as the Cloud API and its custom resource have it.
type declaredProfile struct {
	Name     string `json:"name"`
	Metadata struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec *struct {
		profile.Profile
		Issuers []struct {
			Hostname        string `json:"hostname"`
			CredentialTypes []struct {
				Type string `json:"type"`
			} `json:"credentialTypes"`
		} `json:"issuers"`
	} `json:"spec"`
}

// connector is the profile as connectors have it; the platform's issuers are did:web:<hostname>:issuer.
func (d declaredProfile) connector() profile.Profile {
	if d.Spec == nil {
		return profile.Profile{Name: d.Name}
	}
	p := d.Spec.Profile
	p.Name = first(d.Name, d.Metadata.Name)
	for _, i := range d.Spec.Issuers {
		t := profile.TrustedIssuer{DID: "did:web:" + i.Hostname + ":issuer"}
		for _, c := range i.CredentialTypes {
			t.Types = append(t.Types, c.Type)
		}
		p.TrustedIssuers = append(p.TrustedIssuers, t)
	}
	return p
}

func (a *app) profileFile(file string) (profile.Profile, error) {
	var declared declaredProfile
	if err := a.readDocument(file, &declared); err != nil || declared.Spec != nil {
		return declared.connector(), err
	}
	var p profile.Profile
	err := a.readDocument(file, &p)
	return p, err
}

// readDocument reads JSON or YAML from a file, or from the standard input (-).
func (a *app) readDocument(file string, into any) error {
	raw, err := a.readFile(file)
	if err == nil {
		raw, err = yaml.YAMLToJSONStrict(raw) // a member that stands there twice is an error
	}
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return fail(ExitFailed, "", "%s: %v", file, err)
	}
	return nil
}
