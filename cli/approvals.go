// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/odrl"
)

// decisionValid is how long a signed decision can be handed in.
const decisionValid = 10 * time.Minute

func (a *app) approvalsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "approvals", Short: "What waits for your decision, and deciding it", Args: cobra.NoArgs,
		Long: "A gate of a use case makes a negotiation wait for people. Your decision is signed with a key of your own, which stays on this machine;\nthe provider's connector verifies it, so that nobody in between can decide in your name.",
	}
	key := &cobra.Command{Use: "key", Short: "Your own key for decisions", Args: cobra.NoArgs}
	key.AddCommand(&cobra.Command{
		Use: "create", Short: "Make a key on this machine, unless there is one, and register its public half as yours", Args: cobra.NoArgs,
		Long: "The private half stays in your configuration folder, readable by you only. Offers that are made from now on know the public half;\nan offer that exists already has to be made again.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.createKey(cmd.Context()) },
	})
	key.AddCommand(&cobra.Command{
		Use: "list", Short: "List the registered keys that you may see", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listKeys(cmd.Context()) },
	}, &cobra.Command{
		Use: "delete NAME", Short: "Remove a registered key", Args: cobra.ExactArgs(1),
		Long: "Remove a registered key. Offers that know it keep it until they are made again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := c.DeleteApprovalKeyWithResponse(cmd.Context(), args[0]); err != nil {
				return err
			}
			a.say("Key %s removed. Offers that know it keep it until they are made again.", args[0])
			return nil
		},
	})
	list := &cobra.Command{
		Use: "list", Short: "List what waits for your decision", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listApprovals(cmd.Context()) },
	}
	cmd.AddCommand(key, list,
		a.decideCommand(adminapi.Approve, "Approve what a gate waits for"),
		a.decideCommand(adminapi.Reject, "Reject it; the negotiation ends"),
		a.decideCommand(adminapi.Trigger, "Let a gate pass that waits to be triggered by hand"))
	return cmd
}

// approvalKey is the file with a person's private key.
type approvalKey struct {
	Subject string          `json:"subject"` // whose the Cloud API says that it is
	Key     json.RawMessage `json:"key"`     // private JWK
}

// keyPath is of the Cloud API that a person is logged in to: a key is registered there as that person's.
func (a *app) keyPath(stored storedContext) (string, error) {
	u, err := url.Parse(first(a.api, a.env("KAPHERA_API"), stored.API))
	if err != nil || u.Host == "" {
		return "", client.LoginError("nobody is logged in")
	}
	name := first(stored.Name, "default") + "-" + strings.ReplaceAll(u.Host, ":", "-") + ".json"
	return filepath.Join(a.home, "approval-keys", filepath.Base(name)), nil
}

func (a *app) loadKey() (path string, k approvalKey, err error) {
	stored, err := a.loadContext()
	if err != nil {
		return "", k, err
	}
	if path, err = a.keyPath(stored); err != nil {
		return "", k, err
	}
	raw, err := os.ReadFile(path) // #nosec G304 -- in the person's own configuration
	if err != nil {
		return path, k, err
	}
	if json.Unmarshal(raw, &k) != nil || k.Key == nil {
		return path, k, fail(ExitFailed, "remove it and make another: kaphera approvals key create", "%s is not a key for decisions", path) // the cause may quote the key
	}
	return path, k, nil
}

// haveKey is loadKey where there must be one.
func (a *app) haveKey() (path string, k approvalKey, err error) {
	if path, k, err = a.loadKey(); errors.Is(err, fs.ErrNotExist) {
		err = fail(ExitFailed, "kaphera approvals key create", "there is no key for decisions in %s", path)
	}
	return path, k, err
}

func (a *app) createKey(ctx context.Context) error {
	path, k, err := a.loadKey()
	if errors.Is(err, fs.ErrNotExist) {
		k.Key, err = newKey()
	}
	if err != nil {
		return err
	}
	private, err := jwk.ParseKey(k.Key)
	if err != nil {
		return fail(ExitFailed, "remove it and make another: kaphera approvals key create", "%s is not a key for decisions", path)
	}
	public, err := private.PublicKey()
	if err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	raw, err := json.Marshal(public)
	if err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	r, err := c.RegisterApprovalKeyWithResponse(ctx, client.KeyRegistration{PublicKey: raw})
	if err != nil {
		return err
	}
	registered := *r.JSON201
	k.Subject = registered.Spec.Subject
	file, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("the key: %w", err)
	}
	if err := writeFile(path, file); err != nil {
		return err
	}
	if done, err := a.structured(registered); done {
		return err
	}
	a.say("Registered as %s's: %s\nThe private half is in %s. Offers made from now on know the key.", registered.Spec.Name, registered.Spec.Thumbprint, path)
	return nil
}

func (a *app) listKeys(ctx context.Context) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	keys := client.ApprovalKeyList{Items: []client.ApprovalKey{}}
	for params := (client.ListApprovalKeysParams{}); ; params.After = keys.Next {
		r, err := c.ListApprovalKeysWithResponse(ctx, &params)
		if err != nil {
			return err
		}
		keys.Items, keys.Next = append(keys.Items, r.JSON200.Items...), r.JSON200.Next
		if keys.Next == "" {
			break
		}
	}
	if done, err := a.structured(keys); done {
		return err
	}
	t := table{columns: []string{"NAME", "PERSON", "ORGANIZATION", "ROLES", "THUMBPRINT"}}
	for _, k := range keys.Items {
		t.add(k.Name, k.Spec.Person, orDash(k.Spec.Organization), orDash(strings.Join(k.Spec.Roles, ", ")), k.Spec.Thumbprint)
	}
	if len(t.rows) > 0 {
		a.printTable(t)
	} else {
		a.say("No key is registered that you may see. Next: kaphera approvals key create")
	}
	return nil
}

func newKey() (json.RawMessage, error) {
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	k, err := jwk.Import(raw)
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	return json.Marshal(k)
}

func (a *app) listApprovals(ctx context.Context) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	r, err := c.ListApprovalsWithResponse(ctx)
	if err != nil {
		return err
	}
	for i := range r.JSON200.Items { // the hash is of what is shown here, not of what the Cloud API says
		about := &r.JSON200.Items[i]
		if about.Unreadable != "" {
			fprintf(a.err, "Negotiation %s: its offer cannot be read (%s). Tell the provider's operator.\n", about.Negotiation, about.Unreadable)
			continue
		}
		if _, about.OfferHash, err = offerShown(*about); err != nil {
			fprintf(a.err, "Negotiation %s: %s. Decide nothing there, and tell the provider's operator.\n", about.Negotiation, visible(err.Error()))
		}
	}
	if done, err := a.structured(*r.JSON200); done {
		return err
	}
	t := table{columns: []string{"NEGOTIATION", "GATE", "PROVIDER", "COUNTERPARTY", "ASSET", "USE CASE", "UNTIL"}}
	for _, i := range r.JSON200.Items {
		t.add(i.Negotiation, i.Gate.Name, i.Participant, i.Counterparty, i.AssetID, orDash(i.UseCase), a.when(i.Gate.Deadline))
		t.note(i.Gate.Words)
		for _, v := range i.Verdicts {
			t.note(map[bool]string{true: "met: ", false: "not met: "}[v.Satisfied] + v.Sentence)
		}
		t.note("offer: " + orDash(i.OfferHash))
	}
	if len(t.rows) > 0 {
		a.printTable(t)
	} else {
		a.say("Nothing waits for your decision.")
	}
	for _, p := range r.JSON200.Unreachable {
		fprintf(a.err, "The cell of %s does not answer: something may wait there too.\n", p)
	}
	return nil
}

func (a *app) decideCommand(v adminapi.Verdict, short string) *cobra.Command {
	var o decideOptions
	cmd := &cobra.Command{
		Use: string(v) + " NEGOTIATION", Short: short, Args: cobra.ExactArgs(1),
		Long: short + ". Signed with your own key (kaphera approvals key create) for this negotiation and exactly this offer.\n" +
			"What you sign is shown, and you are asked. Where there is no terminal, say --yes and, with --offer, which offer you mean: the hash that kaphera approvals list shows.",
		Example: "  kaphera approvals " + string(v) + " ID --comment 'as discussed'\n  kaphera approvals " + string(v) + " ID --yes --offer HASH",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.decide(cmd.Context(), v, args[0], o)
		},
	}
	cmd.Flags().StringVar(&o.gate, "gate", "", "the gate, where several of the negotiation wait for you")
	cmd.Flags().StringVar(&o.comment, "comment", "", "why; the provider keeps it")
	cmd.Flags().StringVar(&o.offer, "offer", "", "hash of the offer that you mean; another one is refused")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask; needs --offer")
	return cmd
}

type decideOptions struct {
	gate, comment, offer string
	yes                  bool
}

// offerShown reads the offer that the Cloud API shows, and makes its hash.
func offerShown(about client.Approval) (*odrl.Policy, string, error) {
	policy, err := odrl.Parse(about.Policy)
	if err != nil {
		return nil, "", fmt.Errorf("the offer cannot be read: %w", err)
	}
	hash := gate.Terms{OfferID: about.OfferID, AssetID: about.AssetID, Consumer: about.Counterparty, Policy: policy}.Hash()
	if hash != about.OfferHash {
		return nil, hash, fmt.Errorf("the offer that the Cloud API shows is not the one that its hash names (%s, not %s)", hash, about.OfferHash)
	}
	return policy, hash, nil
}

// confirm has a person see what is signed, and agree to it. Where nobody can be asked, the hash of the offer stands for having seen it.
func (a *app) confirm(v adminapi.Verdict, about client.Approval, policy *odrl.Policy, hash string, o decideOptions) error {
	a.showOffer(v, about, policy, hash)
	if o.offer != "" && o.offer != hash {
		return fail(ExitFailed, "kaphera approvals list", "the offer is another one than --offer names: its hash is %s", hash)
	}
	return a.askToSign(string(v), o.yes, "offer", o.offer, "kaphera approvals list")
}

// askToSign asks for a yes at the terminal. What a flag names (a hash, of which list tells) stands for having seen it.
func (a *app) askToSign(what string, yes bool, flag, hash, list string) error {
	switch {
	case yes && hash == "":
		return usage("--yes needs --%s with the hash of what you mean (%s)", flag, list)
	case yes:
		return nil
	case !a.asks:
		return usage("there is no terminal to ask you on: say --yes and --%s with the hash of what you mean (%s)", flag, list)
	}
	if yes, err := a.ask(fmt.Sprintf("Sign this (%s)?", what)); err != nil || yes {
		return err
	}
	return fail(ExitFailed, list, "nothing was signed")
}

// ask asks at the terminal; anything but a yes is a no.
func (a *app) ask(question string) (bool, error) {
	fprintf(a.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(a.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("the answer could not be read: %w", err)
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

// showOffer prints what a decision is about to standard error, so that structured output stays as it is. The rules are said as they are hashed, in full, not
// in a profile's words, which could leave something out.
func (a *app) showOffer(v adminapi.Verdict, about client.Approval, policy *odrl.Policy, hash string) {
	for _, l := range [][2]string{{"Decision", string(v)}, {"Gate", about.Gate.Name}, {"Negotiation", about.Negotiation}, {"Consumer", about.Counterparty},
		{"Provider", about.Provider}, {"Asset", about.AssetID}, {"Offer", about.OfferID}, {"Hash", hash}} {
		fprintf(a.err, "%-12s %s\n", l[0]+":", visible(l[1]))
	}
	fprintln(a.err, "Rules:")
	if len(policy.Permissions)+len(policy.Prohibitions)+len(policy.Obligations) == 0 {
		fprintln(a.err, "  none")
	}
	a.showRules("  ", "permission", policy.Permissions)
	a.showRules("  ", "prohibition", policy.Prohibitions)
	a.showRules("  ", "obligation", policy.Obligations)
}

func (a *app) showRules(indent, kind string, rules []odrl.Rule) {
	for _, r := range rules {
		fprintf(a.err, "%s%s: %s\n", indent, kind, visible(strings.Join(r.Actions, ", ")))
		a.showConstraints(indent+"  ", r.Constraints)
		a.showRules(indent+"  ", "duty", r.Duties)
	}
}

var logicalWords = map[string]string{"and": "all of", "or": "at least one of", "xone": "exactly one of", "andSequence": "all of, in this order"}

func (a *app) showConstraints(indent string, cs []odrl.Constraint) {
	for _, c := range cs {
		if c.Logical != "" {
			fprintf(a.err, "%s%s:\n", indent, logicalWords[c.Logical])
			a.showConstraints(indent+"  ", c.Of)
			continue
		}
		values := make([]string, len(c.Right.Values))
		for i, value := range c.Right.Values {
			values[i] = strconv.Quote(value)
		}
		fprintf(a.err, "%s%s %s %s\n", indent, visible(c.Left), visible(c.Operator), strings.Join(values, ", "))
	}
}

// visible is a text from elsewhere that can neither move the cursor nor pass for a quoted value.
func visible(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r == '"' || !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func (a *app) decide(ctx context.Context, v adminapi.Verdict, negotiation string, o decideOptions) error {
	subject, key, err := a.signingKey()
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	about, err := findApproval(ctx, c, negotiation, o.gate)
	if err != nil {
		return err
	}
	// What is signed is what was shown: the hash is made here, of the offer as the Cloud API shows it.
	policy, hash, err := offerShown(about)
	if err != nil {
		return fail(ExitFailed, "decide nothing, and tell the provider's operator", "%s", err)
	}
	if err := a.confirm(v, about, policy, hash, o); err != nil {
		return err
	}
	now := a.now()
	claims := adminapi.DecisionClaims{Approver: subject, Provider: about.Provider, Negotiation: about.Negotiation, Offer: hash, Gate: about.Gate.Name, Verdict: v, Comment: o.comment,
		IssuedAt: now.Unix(), Expires: now.Add(decisionValid).Unix(), ID: a.newID()}
	signed, err := gate.Sign(key, claims)
	if err != nil {
		return err
	}
	if _, err := c.DecideWithResponse(ctx, about.Participant, about.Negotiation, client.SignedDecision{Decision: signed}); err != nil {
		return err
	}
	if done, err := a.structured(claims); done {
		return err
	}
	a.say("Gate %s of negotiation %s: %s. Next: kaphera describe negotiation %s --participant %s", claims.Gate, claims.Negotiation, v, claims.Negotiation, about.Participant)
	return nil
}

func findApproval(ctx context.Context, c *client.API, negotiation, gateName string) (client.Approval, error) {
	r, err := c.ListApprovalsWithResponse(ctx)
	if err != nil {
		return client.Approval{}, err
	}
	var found []client.Approval
	var gates []string
	for _, i := range r.JSON200.Items {
		if i.Negotiation == negotiation && (gateName == "" || i.Gate.Name == gateName) {
			found, gates = append(found, i), append(gates, i.Gate.Name)
		}
	}
	switch len(found) {
	case 0:
		return client.Approval{}, fail(ExitNotFound, "kaphera approvals list", "nothing of negotiation %s waits for your decision", negotiation)
	case 1:
		return found[0], nil
	}
	return client.Approval{}, usage("several gates of negotiation %s wait for you; choose one with --gate: %s", negotiation, strings.Join(gates, ", "))
}

// printGates prints the gates of a negotiation with the decisions at them.
func (a *app) printGates(gates []client.GateState) {
	if len(gates) > 0 {
		fprintln(a.out, "\nGates:")
	}
	for _, g := range gates {
		fprintf(a.out, "  %s before %s: %s\n", g.Name, g.Before, g.Words)
		for _, d := range g.Decided {
			fprintf(a.out, "    %s %s (%s): %s%s\n", a.when(d.At), d.By.Name, d.By.Organization, d.Decision, prefixed(", ", d.Comment))
		}
	}
}
