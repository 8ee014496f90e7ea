// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client"
	"github.com/kaphera/kaphera/connector/audit"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Read, export and verify the audit trail of a participant", Args: cobra.NoArgs}
	cmd.AddCommand(a.auditTail(), a.auditExport(), a.auditHeads(), a.auditVerify())
	return cmd
}

func (a *app) auditTail() *cobra.Command {
	var count int64
	var types []string
	var follow bool
	cmd := &cobra.Command{
		Use: "tail PARTICIPANT", Short: "Show the last records", Args: cobra.ExactArgs(1),
		Example: "  kaphera audit tail supplier -n 50\n  kaphera audit tail supplier --type data.intent,data.outcome --follow",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, t := range types {
				if !slices.Contains(audit.Types, t) {
					return usage("type %q is not one of %s", t, strings.Join(audit.Types, ", "))
				}
			}
			if follow && a.output != "table" && a.output != "wide" {
				return usage("--follow prints a table")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			var records []*audit.Record
			if _, err := read(ctx, c, args[0], count, func(r *audit.Record, _ []byte) { records = append(records, r) }); err != nil {
				return err
			}
			shown := slices.DeleteFunc(slices.Clone(records), func(r *audit.Record) bool { return len(types) > 0 && !slices.Contains(types, r.Type) })
			if done, err := a.structured(append([]*audit.Record{}, shown...)); done {
				return err
			}
			if err := a.learnNames(ctx, c, args[0]); err != nil {
				return err
			}
			a.printRecords(shown, true)
			if !follow {
				return nil
			}
			return a.followTrail(ctx, c, args[0], types, records)
		},
	}
	cmd.Flags().Int64VarP(&count, "lines", "n", 20, "how many; 0 shows all")
	cmd.Flags().StringSliceVar(&types, "type", nil, "of these types only")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with the records that come")
	return cmd
}

// followTrail prints records as they come.
func (a *app) followTrail(ctx context.Context, c *client.API, participant string, types []string, last []*audit.Record) error {
	after := int64(0)
	for {
		if len(last) > 0 {
			after = last[len(last)-1].Seq
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(a.poll):
		}
		var err error
		if last, _, err = page(ctx, c, participant, &client.GetAuditParams{After: after}); err != nil {
			return err
		}
		a.printRecords(slices.DeleteFunc(slices.Clone(last), func(r *audit.Record) bool { return len(types) > 0 && !slices.Contains(types, r.Type) }), false)
	}
}

func (a *app) printRecords(records []*audit.Record, heading bool) {
	t := table{columns: []string{"SEQ", "TIME", "TYPE", "ACTOR", "WHAT"}}
	for _, r := range records {
		t.add(fmt.Sprint(r.Seq), a.when(r.At), r.Type, a.party(r.Actor), what(r))
	}
	if heading || len(records) > 0 {
		a.printTable(t)
	}
}

// what says in a few words what a record is about.
func what(r *audit.Record) string {
	if r.Withheld {
		return "(stays in the cell)"
	}
	if r.Body == nil {
		return "(pruned)"
	}
	var b struct {
		Do        string `json:"do"`
		State     string `json:"state"`
		Process   string `json:"process"`
		Agreement string `json:"agreement"`
		Asset     string `json:"asset"`
		Method    string `json:"method"`
		Path      string `json:"path"`
		Phase     string `json:"phase"`
		Status    int    `json:"status"`
		Bytes     int64  `json:"bytes"`
		Allowed   bool   `json:"allowed"`
		Unknown   bool   `json:"unknown"`
		Through   int64  `json:"through"`
		Event     string `json:"event"`
		Profile   string `json:"profile"`
		Type      string `json:"type"`
		Reason    any    `json:"reason"` // a text, of a credential or a head
		Head      struct {
			Seq int64 `json:"seq"`
		} `json:"head"`
	}
	if json.Unmarshal(r.Body, &b) != nil {
		return string(r.Body)
	}
	switch r.Type {
	case audit.Management:
		return b.Do
	case audit.NegotiationTransition, audit.TransferTransition:
		return b.State + " " + b.Process + ", asset " + b.Asset
	case audit.Agreement:
		return b.Agreement + ", asset " + b.Asset
	case audit.Policy:
		verdict := "denied"
		if b.Allowed {
			verdict = "allowed"
		}
		return verdict + " (" + b.Phase + ") " + b.Process
	case audit.Credential:
		if reason, ok := b.Reason.(string); ok {
			return b.Type + " " + b.Event + ": " + reason
		}
		return b.Type + " " + b.Event
	case audit.DataIntent:
		return strings.TrimSpace(b.Method+" "+b.Path) + ", asset " + b.Asset + ", agreement " + b.Agreement
	case audit.DataOutcome, audit.DataFetched:
		if b.Unknown {
			return "nobody knows how it went"
		}
		return fmt.Sprintf("%d, %d bytes", b.Status, b.Bytes)
	case audit.Profile:
		return b.Profile
	case audit.CounterpartyHead:
		if b.Head.Seq == 0 {
			return fmt.Sprintf("none, agreement %s: %v", b.Agreement, b.Reason)
		}
		return fmt.Sprintf("record %d, agreement %s", b.Head.Seq, b.Agreement)
	case audit.Pruned:
		return fmt.Sprintf("bodies up to record %d", b.Through)
	}
	return string(r.Body)
}

// page asks for a part of a trail.
func page(ctx context.Context, c *client.API, participant string, p *client.GetAuditParams) (records []*audit.Record, lines [][]byte, err error) {
	resp, err := c.GetAuditWithResponse(ctx, participant, p)
	if err != nil {
		return nil, nil, err
	}
	for line := range bytes.Lines(resp.Body) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		r, h, err := audit.ParseLine(line)
		if err != nil {
			return nil, nil, fmt.Errorf("the audit trail of %s as it was answered: %w", participant, err)
		}
		if h == nil {
			records = append(records, r)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil, nil, fmt.Errorf("the audit trail of %s was answered without its head", participant)
	}
	return records, lines, nil
}

func (a *app) auditExport() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "export PARTICIPANT", Short: "Write the whole trail as JSON Lines", Args: cobra.ExactArgs(1),
		Long:    "Write the whole trail as JSON Lines: one record a line, and the head of the chain last. kaphera audit verify checks such a file without anything else; keep it as it is.",
		Example: "  kaphera audit export supplier --to supplier.jsonl",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			var out bytes.Buffer
			head, err := read(cmd.Context(), c, args[0], 0, func(_ *audit.Record, line []byte) { _, _ = fmt.Fprintf(&out, "%s\n", line) })
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintf(&out, "%s\n", head)
			return a.deliver(file, out.Bytes(), "the trail of "+args[0])
		},
	}
	cmd.Flags().StringVar(&file, "to", "", "write into this file instead of printing")
	return cmd
}

// read hands over the trail, the last so many records or with 0 all, up to the head that it has at the beginning, and returns that as a line.
func read(ctx context.Context, c *client.API, participant string, last int64, each func(r *audit.Record, line []byte)) (headLine []byte, err error) {
	var head *audit.Head
	p := client.GetAuditParams{Last: last}
	for head == nil || p.After < head.Seq {
		records, lines, err := page(ctx, c, participant, &p)
		if err != nil {
			return nil, err
		}
		if head == nil {
			headLine = lines[len(lines)-1]
			if _, head, err = audit.ParseLine(headLine); err != nil || head == nil {
				return nil, fmt.Errorf("the audit trail of %s was answered without its head", participant)
			}
		}
		if len(records) == 0 && p.After < head.Seq {
			return nil, fmt.Errorf("the audit trail of %s ends with record %d, its head is record %d", participant, p.After, head.Seq)
		}
		p.Last = 0
		for i, r := range records {
			if p.After = r.Seq; p.After > head.Seq {
				break
			}
			each(r, lines[i])
		}
	}
	return headLine, nil
}

// deliver writes into a file, or prints.
func (a *app) deliver(file string, raw []byte, name string) error {
	if file == "" {
		_, err := a.out.Write(raw)
		return err
	}
	if err := writeFile(file, raw); err != nil {
		return err
	}
	a.say("%s: %d lines written to %s", name, bytes.Count(raw, []byte("\n")), file)
	return nil
}

func (a *app) auditHeads() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "heads PARTICIPANT", Short: "Write what the cell reported of the chain, as a checkpoint", Args: cobra.ExactArgs(1),
		Long:    "Write the heads of the participant's chain that its cell reported and the cloud keeps. As a file it is a checkpoint: kaphera audit verify --checkpoint FILE finds with it a chain that was cut short, or rewritten as a whole.",
		Example: "  kaphera audit heads supplier --to supplier.heads",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			heads, err := reported(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			var out bytes.Buffer
			for _, h := range heads {
				if err := audit.WriteHead(&out, h); err != nil {
					return err
				}
			}
			return a.deliver(file, out.Bytes(), "heads of "+args[0])
		},
	}
	cmd.Flags().StringVar(&file, "to", "", "write into this file instead of printing")
	return cmd
}

// reported are the heads that the cloud keeps.
func reported(ctx context.Context, c *client.API, participant string) (out []audit.Head, err error) {
	r, err := c.GetAuditHeadsWithResponse(ctx, participant)
	if err != nil {
		return nil, err
	}
	for _, h := range r.JSON200.Items {
		out = append(out, audit.Head{Chain: h.Chain, Ctx: h.Ctx, Seq: h.Seq, At: h.At, Hash: h.Hash, Open: h.Open})
	}
	return out, nil
}

func (a *app) auditVerify() *cobra.Command {
	var checkpoints, witnesses []string
	var participant, did string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check an exported trail: is it whole and unchanged?", Args: cobra.ExactArgs(1),
		Long: `Check an exported trail. A record that was changed, is missing or out of order is found from the file alone.
A trail that was cut short or rewritten as a whole is found by comparing it with heads that were kept elsewhere: a checkpoint file, another export,
what the cloud keeps (--participant), or what its counterparties have on record (--witness). Of a witness counts what the participant itself told, so
its DID is needed, from elsewhere than the file: --did, or --participant for the one that the cloud knows. Exit code 1 names the first bad record and
why, or says that no witness has a head of this trail.`,
		Example: "  kaphera audit verify supplier.jsonl\n  kaphera audit verify supplier.jsonl --participant supplier\n  kaphera audit verify supplier.jsonl --checkpoint supplier.heads\n  kaphera audit verify supplier.jsonl --witness oem.jsonl --did did:web:supplier.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			known, err := a.knownHeads(cmd.Context(), participant, checkpoints)
			if err != nil {
				return err
			}
			t, err := a.toldTo(cmd.Context(), witnesses, did, participant)
			if err != nil {
				return err
			}
			in := a.in
			if args[0] != "-" {
				f, err := os.Open(args[0]) // #nosec G304 -- the caller names the file
				if err != nil {
					return err
				}
				defer func() { _ = f.Close() }()
				in = f
			}
			return a.verify(in, args[0], known, t)
		},
	}
	cmd.Flags().StringSliceVar(&checkpoints, "checkpoint", nil, "file with heads that are known to be right")
	cmd.Flags().StringSliceVar(&witnesses, "witness", nil, "exported trail of a counterparty, which has heads of this one on record with its agreements")
	cmd.Flags().StringVar(&did, "did", "", "of the participant whose trail it is, for --witness")
	cmd.Flags().StringVarP(&participant, "participant", "p", "", "compare with the heads that the cloud keeps of this participant")
	return cmd
}

func (a *app) knownHeads(ctx context.Context, participant string, files []string) (known []audit.Head, err error) {
	for _, name := range files {
		f, err := os.Open(name) // #nosec G304 -- the caller names the file
		if err != nil {
			return nil, err
		}
		heads, err := audit.ReadHeads(f)
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", name, err)
		}
		known = append(known, heads...)
	}
	if participant == "" {
		return known, nil
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	heads, err := reported(ctx, c, participant)
	return append(known, heads...), err
}

// testimony is what a participant told its counterparties; without a DID none was asked for.
type testimony struct {
	did   string
	heads []audit.Head
}

// toldTo reads what the exported trails of counterparties hold. One that does not verify itself is no witness.
func (a *app) toldTo(ctx context.Context, files []string, did, participant string) (t testimony, err error) {
	if len(files) == 0 {
		return t, nil
	}
	if did == "" {
		if participant == "" {
			return t, usage("--witness needs the DID of the participant whose trail it is: add --did, or --participant for the one that the cloud knows")
		}
		if did, err = a.didOf(ctx, participant); err != nil {
			return t, err
		}
	}
	t.did = did
	for _, name := range files {
		f, err := os.Open(name) // #nosec G304 -- the caller names the file
		if err != nil {
			return t, err
		}
		r, err := audit.Verify(f, nil)
		_ = f.Close()
		if err != nil {
			return t, fmt.Errorf("witness %s: %w", name, err)
		}
		t.heads = append(t.heads, audit.Told(did, r.Witnessed)...)
	}
	return t, nil
}

// didOf is the DID that the cloud knows a participant by.
func (a *app) didOf(ctx context.Context, participant string) (string, error) {
	c, err := a.client()
	if err != nil {
		return "", err
	}
	r, err := c.GetParticipantWithResponse(ctx, participant)
	if err != nil {
		return "", err
	}
	if r.JSON200.Status.DID == "" {
		return "", usage("the cloud knows no DID of participant %s yet: add --did", participant)
	}
	return r.JSON200.Status.DID, nil
}

func (a *app) verify(in io.Reader, name string, known []audit.Head, t testimony) error {
	r, err := audit.Verify(in, known, t.heads...)
	if err == nil && t.did != "" && r.Told == 0 {
		why := fmt.Sprintf("the witnesses have no head of its chain %s that %s told; of other chains they have %d", r.Head.Chain, t.did, len(t.heads))
		if _, err := a.structured(map[string]any{"verified": false, "why": why}); err != nil {
			return err
		}
		return fail(ExitFailed, "check --did, and take the trail of a counterparty that made an agreement with it since this chain began; without --witness the file alone is checked",
			"%s cannot be compared: %s", name, why)
	}
	var bad *audit.BadError
	switch {
	case errors.As(err, &bad):
		if _, err := a.structured(map[string]any{"verified": false, "record": bad.Seq, "line": bad.Line, "why": bad.Why}); err != nil {
			return err
		}
		return fail(ExitFailed, "keep the file as it is, and compare it with an export from the cell itself", "%s does not verify: %s", name, bad)
	case err != nil:
		return err
	}
	if done, err := a.structured(struct {
		Verified bool `json:"verified"`
		*audit.Result
	}{true, r}); done {
		return err
	}
	s := a.style(a.out)
	fprintf(a.out, "%s %d records of %s, whole and unchanged, up to %s\n", s.good("verified:"), r.Records, r.Head.Ctx, a.when(r.Head.At))
	fprintf(a.out, "chain %s, head %s\n", r.Head.Chain, r.Head.Hash)
	for _, t := range slices.Sorted(maps.Keys(r.ByType)) {
		fprintf(a.out, "  %-24s %d\n", t, r.ByType[t])
	}
	if r.Pruned+r.Withheld > 0 {
		fprintf(a.out, "bodies: %d were pruned, %d are not in this file; their digests are\n", r.Pruned, r.Withheld)
	}
	for _, o := range r.Open {
		fprintf(a.out, "%s access %s under agreement %s (record %d) has no outcome: it is under way, or its process ended\n", s.warn("open:"), o.ID, o.Agreement, o.Seq)
	}
	for _, o := range r.Unknown {
		fprintf(a.out, "%s access %s under agreement %s (record %d): its process ended, nobody knows how much was sent\n", s.warn("unknown:"), o.ID, o.Agreement, o.Seq)
	}
	if r.Compared == 0 {
		fprintf(a.out, "%s compared with no head from elsewhere, so a trail cut short or rewritten as a whole would pass: add --participant, --witness or --checkpoint\n", s.warn("note:"))
	} else {
		fprintf(a.out, "agrees with %d heads from elsewhere\n", r.Compared)
	}
	return nil
}
