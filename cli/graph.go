// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
)

// graph is the dataspace as it is now: what runs where, and who has agreed with whom. All lists are sorted.
type graph struct {
	Cells      []graphCell      `json:"cells"`
	Elsewhere  []graphParty     `json:"elsewhere"`  // parties to agreements whose connectors are not on this platform, or not this person's to see
	Agreements []graphAgreement `json:"agreements"` // of all that was agreed, also what has ended since
	Unknown    []string         `json:"unknown"`    // participants whose connector did not tell its agreements, and why
}

type graphCell struct {
	Name           string       `json:"name"`
	Type           string       `json:"type"`
	OperatingParty string       `json:"operatingParty,omitempty"`
	Participants   []graphParty `json:"participants"`
	Issuers        []graphParty `json:"issuers"`
}

// graphParty is a participant, with its organization and profiles, or an issuer, with its profile.
type graphParty struct {
	ID       string   `json:"id"` // of its node: a DID, or an issuer's host name
	Name     string   `json:"name"`
	Of       string   `json:"of,omitempty"`
	Profiles []string `json:"profiles,omitempty"`
	State    string   `json:"state,omitempty"` // of its connector, as in kaphera status
}

type graphAgreement struct {
	Provider string `json:"provider"` // its node, as Consumer is
	Consumer string `json:"consumer"`
	What     string `json:"what"` // the use case, or the asset where there is none
	Count    int    `json:"count"`
}

func (a *app) graphCommand() *cobra.Command {
	var format, file string
	cmd := &cobra.Command{
		Use: "graph", Short: "Draw what runs where, and who has agreed with whom", Args: cobra.NoArgs,
		Long: `Draw the dataspace as it is now, as far as you may see it: cells with their participants and issuers, and the agreements between participants, from the
one that provides data to the one that uses it. Mermaid text goes into any Markdown page; an SVG picture opens in a browser.`,
		Example: "  kaphera graph\n  kaphera graph --format svg --to dataspace.svg\n  kaphera graph -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			draw, known := map[string]func(*graph) string{"mermaid": mermaid, "svg": svg}[format]
			if !known {
				return usage("--format %q is not one of mermaid, svg", format)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			g, err := a.graph(cmd.Context(), c)
			if err != nil {
				return err
			}
			if done, err := a.structured(g); done {
				return err
			}
			for _, u := range g.Unknown {
				fprintf(a.err, "not drawn: the agreements of %s\n", u)
			}
			return a.deliver(file, []byte(draw(g)), "the dataspace")
		},
	}
	cmd.Flags().StringVar(&format, "format", "mermaid", "mermaid or svg")
	cmd.Flags().StringVar(&file, "to", "", "write into this file instead of printing")
	return cmd
}

// graph reads what there is to draw. A connector that does not answer leaves its agreements out, and is named.
func (a *app) graph(ctx context.Context, c *client.API) (*graph, error) {
	cells, err := listed[client.Cell](ctx, c, a.cellNoun())
	if err != nil {
		return nil, err
	}
	profiles, err := listed[client.DataspaceProfile](ctx, c, a.profileNoun())
	if err != nil {
		return nil, err
	}
	participants, err := listed[client.Participant](ctx, c, a.participantNoun())
	if err != nil {
		return nil, err
	}
	status, err := c.GetStatusWithResponse(ctx)
	if err != nil {
		return nil, err
	}
	g := &graph{Cells: []graphCell{}, Elsewhere: []graphParty{}, Agreements: []graphAgreement{}, Unknown: []string{}}
	cell := g.cell(cells)
	states := map[string]client.StatusParticipant{}
	for _, s := range status.JSON200.Participants {
		states[s.Participant] = s
	}
	for _, p := range participants {
		s := states[p.Name]
		at := cell(cmp.Or(s.Cell, p.Spec.Cell))
		at.Participants = append(at.Participants, graphParty{cmp.Or(p.Status.DID, p.Name), p.Name, p.Spec.Organization, append([]string{p.Spec.Profile}, p.Spec.FurtherProfiles...), string(s.Connector.State)})
	}
	for _, p := range profiles {
		for _, i := range p.Spec.Issuers {
			at := cell(i.Cell)
			at.Issuers = append(at.Issuers, graphParty{ID: i.Hostname, Name: i.Name, Of: p.Name})
		}
	}
	a.agreements(ctx, c, g, participants)
	byName := func(x, y graphParty) int { return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID)) }
	for i := range g.Cells {
		slices.SortFunc(g.Cells[i].Participants, byName)
		slices.SortFunc(g.Cells[i].Issuers, byName)
	}
	slices.SortFunc(g.Elsewhere, byName)
	slices.SortFunc(g.Cells, func(x, y graphCell) int { return strings.Compare(x.Name, y.Name) })
	return g, nil
}

// cell returns what finds a cell's place in the graph, or makes one: of a cell that somebody may not see, its name is known all the same.
func (g *graph) cell(cells []client.Cell) func(name string) *graphCell {
	at := map[string]int{}
	return func(name string) *graphCell {
		if _, there := at[name]; !there {
			at[name] = len(g.Cells)
			made := graphCell{Name: name, Participants: []graphParty{}, Issuers: []graphParty{}}
			if i := slices.IndexFunc(cells, func(c client.Cell) bool { return c.Name == name }); i >= 0 {
				made.Type, made.OperatingParty = cells[i].Spec.Type, cells[i].Spec.OperatingParty
			}
			g.Cells = append(g.Cells, made)
		}
		return &g.Cells[at[name]]
	}
}

// agreements reads those of all participants; one between two of them is told by both and counts once.
func (a *app) agreements(ctx context.Context, c *client.API, g *graph, participants []client.Participant) {
	here := map[string]bool{}
	for _, p := range participants {
		here[p.Status.DID] = true
	}
	names := map[string]string{}
	told := map[graphAgreement]string{} // what each is about, by its parties and its id
	for _, p := range participants {
		r, err := c.ListAgreementsWithResponse(ctx, p.Name)
		if err != nil {
			g.Unknown = append(g.Unknown, p.Name+": "+err.Error())
			continue
		}
		for _, e := range r.JSON200.Items {
			one := graphAgreement{Provider: e.Provider, Consumer: e.Consumer, What: e.ID}
			told[one] = cmp.Or(e.UseCase, told[one], e.AssetID) // the provider knows the use case
			for _, did := range []string{e.Provider, e.Consumer} {
				if here[did] {
					continue
				}
				here[did] = true
				if names[did] == "" {
					if partners, err := c.ListPartnersWithResponse(ctx, p.Name); err == nil {
						for _, partner := range partners.JSON200.Items {
							names[partner.DID] = partner.Name
						}
					}
				}
				g.Elsewhere = append(g.Elsewhere, graphParty{ID: did, Name: first(names[did], did)})
			}
		}
	}
	count := map[graphAgreement]int{}
	for e, what := range told {
		e.What = what
		count[e]++
	}
	for e, n := range count {
		e.Count = n
		g.Agreements = append(g.Agreements, e)
	}
	slices.SortFunc(g.Agreements, func(x, y graphAgreement) int {
		return cmp.Or(strings.Compare(x.Provider, y.Provider), strings.Compare(x.Consumer, y.Consumer), strings.Compare(x.What, y.What))
	})
}

// listed are all values of a noun.
func listed[T any](ctx context.Context, c *client.API, n noun) ([]T, error) {
	found, err := n.list(ctx, c, "")
	if err != nil {
		return nil, err
	}
	out := make([]T, len(found))
	for i, f := range found {
		out[i] = f.value.(T)
	}
	return out, nil
}

// label says what agreements are about.
func (e graphAgreement) label() string {
	if e.Count == 1 {
		return e.What
	}
	return fmt.Sprintf("%s ×%d", e.What, e.Count)
}

func (c graphCell) parties() []graphParty { return slices.Concat(c.Participants, c.Issuers) }

func (c graphCell) label() string {
	out := "cell " + c.Name
	if c.Type != "" && c.Type != c.Name {
		out += " (" + c.Type + ")"
	}
	if c.OperatingParty != "" {
		out += ", operated by " + c.OperatingParty
	}
	return out
}

// lines are what stands in a party's box.
func (p graphParty) lines() []string {
	out := []string{p.Name}
	if p.Of != "" {
		out = append(out, p.Of)
	}
	if len(p.Profiles) > 0 {
		out = append(out, strings.Join(p.Profiles, ", "))
	}
	return out
}
