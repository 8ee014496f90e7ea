// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaphera/kaphera/connector/audit"
)

// trail: an audit trail is exported and verified; then one record of the copy is changed, and found.
func (d *demo) trail(ctx context.Context) error {
	if err := d.next(ctx, "%s's audit trail is exported, and verified with the heads that the cloud keeps", d.supplier); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kaphera-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file, heads := filepath.Join(dir, d.supplier+".jsonl"), filepath.Join(dir, d.supplier+".heads")
	// The heads first: the trail goes on, and later ones are not in its export.
	for _, args := range [][]string{{"heads", d.supplier, "--to", heads}, {"export", d.supplier, "--to", file}, {"verify", file, "--checkpoint", heads}} {
		said, err := d.command(ctx, d.app, ExitOK, append([]string{"audit"}, args...)...)
		if err != nil {
			return err
		}
		d.tellLines(said)
	}
	raw, err := os.ReadFile(file) // #nosec G304 -- written just now
	if err != nil {
		return err
	}
	changed, seq, err := tampered(raw)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, changed, ownerOnly); err != nil { // #nosec G703 -- in the folder made above
		return err
	}
	if err := d.next(ctx, "Somebody changes one record of it, %d: the asset that an agreement is about", seq); err != nil {
		return err
	}
	said, err := d.command(ctx, d.app, ExitFailed, "audit", "verify", file)
	if err != nil {
		return err
	}
	if !strings.Contains(said, fmt.Sprintf("record %d ", seq)) {
		return fail(ExitFailed, "compare the export with another", "record %d was changed, and verify says: %s", seq, said)
	}
	d.tellLines(said)
	d.tell("%s Exit code %d, and it names the record.", d.style(d.out).good("Found."), ExitFailed)
	return nil
}

// tampered changes the last agreement of an exported trail.
func tampered(trail []byte) (changed []byte, seq int64, err error) {
	lines := bytes.SplitAfter(trail, []byte("\n"))
	for i := len(lines) - 1; i >= 0; i-- {
		r, head, err := audit.ParseLine(bytes.TrimSpace(lines[i]))
		if err != nil || head != nil || r.Type != audit.Agreement {
			continue
		}
		line := bytes.Replace(lines[i], []byte(`"asset":"`), []byte(`"asset":"another-`), 1)
		if bytes.Equal(line, lines[i]) {
			continue
		}
		lines[i] = line
		return bytes.Join(lines, nil), r.Seq, nil
	}
	return nil, 0, fail(ExitFailed, "kaphera demo run carbon-footprint makes one", "no agreement is on record that could be changed")
}
