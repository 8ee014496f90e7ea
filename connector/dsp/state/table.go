// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"strings"
)

// Markdown writes the table of m for docs/state-machines.md.
func (m *Machine) Markdown() string {
	var b strings.Builder
	b.WriteString("| side | from | on | to | protocol state | effects |\n|---|---|---|---|---|---|\n")
	for _, t := range m.Table {
		role := string(t.Role)
		if role == "" {
			role = "both"
		}
		from := strings.Join(t.From, ", ")
		if t.From[0] == "" {
			from = strings.TrimSuffix("(none), "+strings.Join(t.From[1:], ", "), ", ")
		}
		wire := t.Wire
		if t.Via != "" {
			wire = t.Via + ", then " + wire
		}
		var effects []string
		for _, r := range []Role{Consumer, Provider} {
			if message := m.Messages[r][t.To]; message != "" && t.To != t.From[0] && (t.Role == r || (t.Role == "" && r == Consumer)) {
				effects = append(effects, "send "+message)
			}
		}
		for _, e := range t.Effects {
			effects = append(effects, strings.TrimSpace(string(e.Kind)+" "+e.Value))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", role, from, t.On, t.To, wire, strings.Join(effects, "; "))
	}
	return b.String()
}
