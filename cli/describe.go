// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/client"
)

func (a *app) describeCommand() *cobra.Command {
	var participant string
	cmd := &cobra.Command{
		Use: "describe KIND NAME", Short: "Show one thing with everything that is known about it, in words", Args: cobra.ExactArgs(2), ValidArgs: a.nounNames(),
		Example: "  kaphera describe participant supplier\n  kaphera describe negotiation ID --participant oem",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.describe(cmd.Context(), participant, args) },
	}
	cmd.Flags().StringVarP(&participant, "participant", "p", "", "whose connector")
	return cmd
}

func (a *app) describe(ctx context.Context, participant string, args []string) error {
	n, c, err := a.nounAndClient(ctx, args[0], participant)
	if err != nil {
		return err
	}
	it, err := n.get(ctx, c, participant, args[1])
	if err != nil {
		return err
	}
	if done, err := a.structured(it.value); done {
		return err
	}
	t := table{columns: n.columns}
	t.add(it.cells...)
	a.printTable(t)
	if n.describe == nil && n.ofParty {
		return a.describeWhole(it.value)
	}
	if err := a.describeObject(it.value); err != nil {
		return err
	}
	if n.describe != nil {
		n.describe(a, it.value)
	}
	return nil
}

// describeWhole prints everything that the connector says about a thing, as YAML.
func (a *app) describeWhole(v any) error {
	raw, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	fprintf(a.out, "\n%s\n%s\n", a.style(a.out).bold("What is known:"), indent(strings.TrimSpace(string(raw)), "  "))
	return nil
}

// describeObject prints spec as YAML and every condition as a sentence; things without a spec are printed by their noun.
func (a *app) describeObject(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	var o struct {
		Spec   json.RawMessage `json:"spec"`
		Status struct {
			Conditions []client.Condition       `json:"conditions"`
			Checks     []client.OnboardingCheck `json:"checks"`
			Sentences  []string                 `json:"sentences"`
		} `json:"status"`
	}
	if err := json.Unmarshal(raw, &o); err != nil || o.Spec == nil {
		return nil //nolint:nilerr // it has no spec
	}
	spec, err := yaml.JSONToYAML(o.Spec)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	s := a.style(a.out)
	fprintf(a.out, "\n%s\n%s\n", s.bold("What is wanted:"), indent(strings.TrimSpace(string(spec)), "  "))
	if len(o.Status.Sentences) > 0 {
		fprintf(a.out, "\n%s\n", s.bold("What a contract demands:"))
	}
	for _, line := range o.Status.Sentences {
		fprintln(a.out, "  - "+line)
	}
	if len(o.Status.Checks) > 0 {
		fprintf(a.out, "\n%s\n", s.bold("Onboarding:"))
	}
	for _, c := range o.Status.Checks {
		fprintln(a.out, strings.TrimRight("  "+s.state(c.State)+" "+c.Name+"  "+c.Reason, " "))
	}
	if len(o.Status.Conditions) > 0 {
		fprintf(a.out, "\n%s\n", s.bold("What was observed:"))
	}
	for _, c := range o.Status.Conditions {
		fprintf(a.out, "  %s%s %s  %s\n", s.state(c.Status), strings.Repeat(" ", max(0, len("Unknown")-len(c.Status))), c.Type, first(c.Message, c.Reason))
	}
	return nil
}
