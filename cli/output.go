// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/muesli/termenv"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// style colours words for a terminal; everywhere else it leaves them alone.
type style struct{ r *lipgloss.Renderer }

func (a *app) style(w io.Writer) style {
	r := lipgloss.NewRenderer(w)
	if a.tty {
		r.SetColorProfile(termenv.ANSI)
		r.SetHasDarkBackground(true)
	} else {
		r.SetColorProfile(termenv.Ascii)
	}
	return style{r}
}

func (s style) in(colour, text string) string {
	return s.r.NewStyle().Foreground(lipgloss.Color(colour)).Render(text)
}

func (s style) good(t string) string  { return s.in("2", t) }
func (s style) bad(t string) string   { return s.in("1", t) }
func (s style) warn(t string) string  { return s.in("3", t) }
func (s style) faint(t string) string { return s.r.NewStyle().Faint(true).Render(t) }
func (s style) bold(t string) string  { return s.r.NewStyle().Bold(true).Render(t) }

// state colours a word by what it means.
func (s style) state(word string) string {
	switch word {
	case "Healthy", "FINALIZED", "Valid", "True", "Offered", "STARTED", "COMPLETED", "Passed":
		return s.good(word)
	case "Failed", "TERMINATED", "Expired", "Revoked", "Rejected", "WrongIssuer", "Suspended", "Withheld":
		return s.bad(word)
	case "Warning", "Expiring", "Pending", "Requested", "REQUESTED", "AGREED", "VERIFIED":
		return s.warn(word)
	}
	return word
}

// table is columns that line up. Rows may have notes, printed indented below them.
type table struct {
	columns []string
	rows    [][]string
	notes   map[int][]string
}

// add keeps a row on one line, whatever its cells hold.
func (t *table) add(cells ...string) {
	for i, c := range cells {
		cells[i] = strings.ReplaceAll(c, "\n", " ")
	}
	t.rows = append(t.rows, cells)
}

func (t *table) note(text string) {
	if t.notes == nil {
		t.notes = map[int][]string{}
	}
	t.notes[len(t.rows)-1] = append(t.notes[len(t.rows)-1], text)
}

func (a *app) printTable(t table) {
	s := a.style(a.out)
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		widths[i] = lipgloss.Width(c)
	}
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], lipgloss.Width(c))
		}
	}
	line := func(cells []string, paint func(string) string) {
		var b strings.Builder
		for i, c := range cells {
			b.WriteString(paint(c))
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-lipgloss.Width(c)+2))
			}
		}
		fprintln(a.out, strings.TrimRight(b.String(), " "))
	}
	line(t.columns, s.bold)
	for i, row := range t.rows {
		line(row, s.state)
		for _, n := range t.notes[i] {
			fprintln(a.out, s.faint(indent(a.wrap(n, 4), "    ")))
		}
	}
}

// wrap breaks text to the terminal's width; where there is none, lines stay whole.
func (a *app) wrap(text string, margin int) string {
	f, ok := a.out.(*os.File)
	if !ok || !a.tty {
		return text
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		return text
	}
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		if i > 0 && column+1+lipgloss.Width(word) > width-margin {
			b.WriteByte('\n')
			column = 0
		} else if i > 0 {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += lipgloss.Width(word)
	}
	return b.String()
}

func indent(text, by string) string { return by + strings.ReplaceAll(text, "\n", "\n"+by) }

// structured prints v as JSON or YAML when that was asked for, and says whether it did.
func (a *app) structured(v any) (bool, error) {
	if a.output != "json" && a.output != "yaml" {
		return false, nil
	}
	raw, err := json.MarshalIndent(v, "", "  ")
	if err == nil && a.output == "yaml" {
		raw, err = yaml.JSONToYAML(raw)
	}
	if err != nil {
		return true, fmt.Errorf("output: %w", err)
	}
	fprintln(a.out, strings.TrimRight(string(raw), "\n"))
	return true, nil
}

// What a closed pipe does to output is the shell's business.
func fprintf(w io.Writer, format string, args ...any) { fprint(w, fmt.Sprintf(format, args...)) }
func fprintln(w io.Writer, args ...any)               { fprint(w, fmt.Sprintln(args...)) }
func fprint(w io.Writer, args ...any)                 { _, _ = io.WriteString(w, harmless(fmt.Sprint(args...))) }

// ours are the only control sequences that reach a terminal: colours.
var ours = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// harmless is a text with all taken out by which what others wrote (a reason, a title) could move the cursor or change the order of what is read.
func harmless(text string) string {
	var out strings.Builder
	plain := func(s string) {
		out.WriteString(strings.Map(func(r rune) rune {
			if r == '\n' || r == '\t' || strconv.IsPrint(r) {
				return r
			}
			return '\uFFFD'
		}, s))
	}
	at := 0
	for _, colour := range ours.FindAllStringIndex(text, -1) {
		plain(text[at:colour[0]])
		out.WriteString(text[colour[0]:colour[1]])
		at = colour[1]
	}
	plain(text[at:])
	return out.String()
}

// when is a time in the reader's zone, which is named.
func (a *app) when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(a.zone).Format("2006-01-02 15:04:05 MST")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
