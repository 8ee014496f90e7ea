// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/adminapi"
	"github.com/kaphera/kaphera/connector/gate"
	"github.com/kaphera/kaphera/connector/usecase"
)

func (a *app) useCaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "usecase", Short: "Revisions of a use case, and signing them off", Args: cobra.NoArgs,
		Long: "Each change of what a use case demands makes a revision, which never changes. Where the use case names signers, it takes effect when one of them\nhas signed it off; until then the one before stays in force. Negotiations and agreements keep the revision that they began under.",
	}
	list := &cobra.Command{
		Use: "revisions NAME", Short: "List a use case's revisions, the newest first", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.listRevisions(cmd.Context(), args[0]) },
	}
	var from, to int64
	diff := &cobra.Command{
		Use: "diff NAME", Short: "Say in plain words what a revision changes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.diffRevisions(cmd.Context(), args[0], from, to)
		},
	}
	diff.Flags().Int64Var(&from, "from", 0, "the revision before (default: the one in force)")
	diff.Flags().Int64Var(&to, "to", 0, "the revision after (default: the newest)")
	var o signOffOptions
	sign := &cobra.Command{
		Use: "sign-off NAME --revision N", Short: "Sign a revision off, which brings it into force", Args: cobra.ExactArgs(1),
		Long:    "Signed with your own key (kaphera approvals key create). What you sign is said in plain words, made here of the very content that is signed, and you are\nasked. Where there is no terminal, say --yes and, with --hash, which content you mean: the hash that kaphera usecase revisions shows.",
		Example: "  kaphera usecase sign-off carbon-footprint --revision 2\n  kaphera usecase sign-off carbon-footprint --revision 2 --yes --hash HASH",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.signOff(cmd.Context(), args[0], o) },
	}
	sign.Flags().Int64Var(&o.revision, "revision", 0, "the revision")
	sign.Flags().StringVar(&o.hash, "hash", "", "hash of the content that you mean; another one is refused")
	sign.Flags().StringVar(&o.language, "language", "en", "in which it is said in plain words: en or de")
	sign.Flags().BoolVar(&o.yes, "yes", false, "do not ask; needs --hash")
	_ = sign.MarkFlagRequired("revision") // the flag exists
	cmd.AddCommand(list, diff, sign)
	return cmd
}

type signOffOptions struct {
	revision       int64
	hash, language string
	yes            bool
}

func (a *app) revisions(ctx context.Context, name string) ([]client.Revision, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	r, err := c.ListUseCaseRevisionsWithResponse(ctx, name)
	if err != nil {
		return nil, err
	}
	return r.JSON200.Items, nil
}

func (a *app) listRevisions(ctx context.Context, name string) error {
	all, err := a.revisions(ctx, name)
	if err != nil {
		return err
	}
	if done, err := a.structured(client.RevisionList{Items: all}); done {
		return err
	}
	t := table{columns: []string{"REVISION", "STATE", "MADE", "BY", "SIGNED OFF", "BY"}}
	for _, r := range all {
		state, signed, by := "before", "-", "-"
		switch {
		case r.InForce:
			state = "in force"
		case r.WaitsFor != "":
			state = "waits"
		case r.SignOff.Signed == "":
			state = "not signed off"
		}
		if r.SignOff.Signed != "" {
			signed, by = a.when(r.SignOff.At), r.SignOff.Name
		}
		t.add(strconv.FormatInt(r.Number, 10), state, a.when(r.MadeAt), orDash(r.MadeBy), signed, by)
		if r.WaitsFor != "" {
			t.note("waits for the sign-off of " + r.WaitsFor)
		}
		t.note("hash: " + r.Hash)
	}
	a.printTable(t)
	return nil
}

// revisionShown reads the content that the Cloud API shows, and makes its explanation.
func revisionShown(r client.Revision, language string) (words []string, err error) {
	c, err := usecase.Check(adminapi.UseCaseRevision{UseCase: r.UseCase, Number: int(r.Number), Hash: r.Hash, Content: r.Content})
	if err != nil {
		return nil, err
	}
	return usecase.Explain(c, language)
}

func (a *app) diffRevisions(ctx context.Context, name string, from, to int64) error {
	all, err := a.revisions(ctx, name)
	if err != nil {
		return err
	}
	var before, after *client.Revision
	for i := range all {
		r := &all[i]
		if r.Number == to || to == 0 && i == 0 {
			after = r
		}
		if r.Number == from || from == 0 && r.InForce {
			before = r
		}
	}
	if after == nil || before == nil {
		return fail(ExitNotFound, "kaphera usecase revisions "+name, "there are no two revisions to compare; name them with --from and --to")
	}
	said := [2][]string{}
	for i, r := range []*client.Revision{before, after} {
		if said[i], err = revisionShown(*r, "en"); err != nil {
			return err
		}
	}
	gone, come := usecase.Diff(said[0], said[1])
	if done, err := a.structured(map[string]any{"from": before.Number, "to": after.Number, "gone": append([]string{}, gone...), "new": append([]string{}, come...)}); done {
		return err
	}
	a.say("From revision %d to revision %d:", before.Number, after.Number)
	for _, s := range gone {
		a.say("- %s", printable(s))
	}
	for _, s := range come {
		a.say("+ %s", printable(s))
	}
	if len(gone)+len(come) == 0 {
		a.say("nothing that changes in words")
	}
	return nil
}

func (a *app) signOff(ctx context.Context, name string, o signOffOptions) error {
	if o.language != "en" && o.language != "de" {
		return usage("--language %q: en or de", o.language)
	}
	subject, key, err := a.signingKey()
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	got, err := c.GetUseCaseRevisionWithResponse(ctx, name, o.revision)
	if err != nil {
		return err
	}
	r := *got.JSON200
	// What is signed is what was shown: hash and words are made here, of the content as the Cloud API shows it.
	words, err := revisionShown(r, o.language)
	if err == nil && (r.UseCase != name || r.Number != o.revision) {
		err = fmt.Errorf("the Cloud API shows revision %d of %s", r.Number, r.UseCase)
	}
	if err != nil {
		return fail(ExitFailed, "sign nothing, and tell the platform's operator", "%s", err)
	}
	for _, w := range words {
		fprintln(a.err, printable(w))
	}
	claims := adminapi.SignOffClaims{Signer: subject, UseCase: name, Number: int(r.Number), Hash: usecase.Hash(r.Content), Read: usecase.ReadHash(words), Language: o.language, Signers: []string{}, IssuedAt: a.now().Unix()}
	for _, s := range r.NextSigners {
		fprintf(a.err, "May sign the next revision: %s (%s), %s\n", visible(s.Name), visible(s.Organization), visible(strings.Join(s.Keys, ", ")))
		claims.Signers = append(claims.Signers, s.Keys...)
	}
	fprintf(a.err, "Hash: %s\n", claims.Hash)
	if o.hash != "" && o.hash != claims.Hash {
		return fail(ExitFailed, "kaphera usecase revisions "+name, "the content is another one than --hash names: its hash is %s", claims.Hash)
	}
	if err := a.askToSign("sign-off", o.yes, "hash", o.hash, "kaphera usecase revisions "+name); err != nil {
		return err
	}
	signed, err := gate.SignJWS(key, usecase.Type, claims)
	if err != nil {
		return err
	}
	done, err := c.SignOffUseCaseRevisionWithResponse(ctx, name, o.revision, client.SignedOff{Signed: signed})
	if err != nil {
		return err
	}
	if done, err := a.structured(*done.JSON200); done {
		return err
	}
	a.say("Revision %d of use case %s is signed off and takes effect. Offers change to it; agreements keep theirs.", r.Number, name)
	return nil
}

// printable is a sentence that cannot move the cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, s)
}

// signingKey is the person's own key, and whose it is.
func (a *app) signingKey() (subject string, key jwk.Key, err error) {
	path, k, err := a.haveKey()
	if err != nil {
		return "", nil, err
	}
	if key, err = jwk.ParseKey(k.Key); err != nil {
		return "", nil, fail(ExitFailed, "remove it and make another: kaphera approvals key create", "%s is not a key for decisions", path)
	}
	return k.Subject, key, nil
}
