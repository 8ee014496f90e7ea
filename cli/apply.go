// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

// desired are the kinds that people write; the others are made by connectors, or by whoever runs the platform.
var desired = []string{"cells", "organizations", "participants", "dataspace-profiles", "use-cases"}

// desiredNoun finds a kind that can be written.
func (a *app) desiredNoun(word string) (noun, error) {
	n, err := a.findNoun(word)
	if err == nil && !slices.Contains(desired, n.name) {
		err = usage("%s cannot be written here", n.name)
	}
	return n, err
}

func (a *app) applyCommand() *cobra.Command {
	var files []string
	var w client.Write
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Create or replace a cell, an organization, a participant, a dataspace profile or a use case", Args: cobra.NoArgs,
		Long: "The file (YAML or JSON, - for standard input) has kind, name and spec. What get -o yaml prints can be applied again with its kind added; with its\n" +
			"revision, it is refused when somebody has changed the thing meanwhile. Several files are applied in their order.",
		Example: "  kaphera apply -f - <<EOF\n  kind: cell\n  name: tier1\n  spec:\n    type: dedicated\n    organization: brandt-guss\n    hostname: tier1.dataspace.example\n    operatingParty: Kaphera Cloud\n" +
			"    quota: {cpu: '1', memory: 4Gi}\n    access:\n      operators: {groups: [tier1-infrastructure]}\n  EOF",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.apply(cmd.Context(), files, w) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "file", "f", nil, "file with the thing, - for standard input; repeatable")
	f.BoolVar(&w.DryRun, "dry-run", false, "judge it, and change nothing")
	f.BoolVar(&w.Force, "force", false, "change what Terraform manages: its next plan will show the difference")
	_ = cmd.MarkFlagRequired("file") // the flag exists
	return cmd
}

func (a *app) deleteCommand() *cobra.Command {
	var w client.Write
	cmd := &cobra.Command{
		Use: "delete KIND NAME", Short: "Remove what apply makes", Args: cobra.ExactArgs(2), ValidArgs: desired,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.desiredNoun(args[0])
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			resp, err := c.Objects(n.name).Delete(cmd.Context(), args[1], w)
			if err != nil {
				return err
			}
			if w.DryRun {
				a.say("%s %s may be removed", n.aliases[0], args[1])
			} else {
				a.say("%s %s is being removed. Next: kaphera describe %s %s, until there is none", n.aliases[0], args[1], n.aliases[0], args[1])
			}
			return resp.Body.Close()
		},
	}
	cmd.Flags().BoolVar(&w.DryRun, "dry-run", false, "ask whether it may be removed, and change nothing")
	cmd.Flags().BoolVar(&w.Force, "force", false, "remove what Terraform manages")
	return cmd
}

// document is a thing in a file.
type document struct {
	Kind     string          `json:"kind,omitempty"`
	Name     string          `json:"name"`
	Revision string          `json:"revision,omitempty"`
	Spec     json.RawMessage `json:"spec"`
}

func (a *app) apply(ctx context.Context, files []string, w client.Write) error {
	documents, nouns := make([]document, len(files)), make([]noun, len(files))
	for i, file := range files { // all are read before the first is written
		d := &documents[i]
		err := a.readDocument(file, d)
		if err == nil && (d.Kind == "" || d.Name == "" || len(d.Spec) == 0) {
			err = errors.New("kind, name and spec are needed")
		}
		if err == nil {
			nouns[i], err = a.desiredNoun(d.Kind)
		}
		if err != nil {
			return fail(ExitUsage, "see: kaphera apply --help", "%s: %v", file, err)
		}
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	var answers []json.RawMessage
	for i, d := range documents {
		d.Kind = "" // the path says it
		body, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("encode %s: %w", files[i], err)
		}
		resp, err := c.Objects(nouns[i].name).Put(ctx, d.Name, w, bytes.NewReader(body))
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return fmt.Errorf("the answer of the Cloud API broke off: %w", err)
		}
		var said struct {
			Warnings []string `json:"warnings"`
		}
		if err := json.Unmarshal(raw, &said); err != nil {
			return fmt.Errorf("the answer of the Cloud API is not JSON: %w", err)
		}
		answers = append(answers, raw)
		done := "replaced"
		if resp.StatusCode == http.StatusCreated {
			done = "created"
		}
		if w.DryRun {
			done = "would be " + done
		}
		a.say("%s %s %s", nouns[i].aliases[0], d.Name, done)
		for _, warning := range said.Warnings {
			fprintf(a.err, "warning: %s\n", warning)
		}
	}
	_, err = a.structured(map[string]any{"items": answers})
	return err
}
