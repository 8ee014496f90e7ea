// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/xml"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Colours of a connector's state: of a box and its edge.
var stateColours = map[string][2]string{
	"Healthy": {"#e7f6ec", "#1a7f37"}, "Pending": {"#eaf2fb", "#1f5fa8"}, "Warning": {"#fff6dd", "#9a6700"}, "Failed": {"#fdebec", "#b3261e"}, "Unknown": {"#f1f1f1", "#6b6b6b"},
}

// states in the order of a legend.
var states = []string{"Healthy", "Pending", "Warning", "Failed", "Unknown"}

// mermaid draws as a flow chart of Mermaid (https://mermaid.js.org/syntax/flowchart.html).
func mermaid(g *graph) string {
	var out strings.Builder
	ids := map[string]string{}
	id := func(of string) string {
		if ids[of] == "" {
			ids[of] = fmt.Sprintf("n%d", len(ids)+1)
		}
		return ids[of]
	}
	node := func(indent string, p graphParty, before, after string) {
		lines := p.lines()
		for i := range lines {
			lines[i] = quoted(lines[i])
		}
		class := ""
		if _, known := stateColours[p.State]; known {
			class = ":::" + p.State
		}
		fmt.Fprintf(&out, "%s%s%s\"%s\"%s%s\n", indent, id(p.ID), before, strings.Join(lines, "<br/>"), after, class)
	}
	out.WriteString("flowchart LR\n")
	for i, c := range g.Cells {
		fmt.Fprintf(&out, "  subgraph c%d[\"%s\"]\n", i+1, quoted(c.label()))
		for _, p := range c.Participants {
			node("    ", p, "[", "]")
		}
		for _, p := range c.Issuers {
			node("    ", p, "([", "])")
		}
		out.WriteString("  end\n")
	}
	for _, p := range g.Elsewhere {
		node("  ", p, "[/", "/]")
	}
	for _, e := range g.Agreements {
		fmt.Fprintf(&out, "  %s -->|\"%s\"| %s\n", id(e.Provider), quoted(e.label()), id(e.Consumer))
	}
	for _, s := range states {
		fmt.Fprintf(&out, "  classDef %s fill:%s,stroke:%s,color:#1b1b1b\n", s, stateColours[s][0], stateColours[s][1])
	}
	return out.String()
}

// quoted is a text inside of Mermaid's quotes, where it reads HTML.
func quoted(s string) string {
	return strings.NewReplacer("&", "#amp;", "\"", "#quot;", "<", "#lt;", ">", "#gt;", "#", "#35;", "`", "#96;").Replace(oneLine(s))
}

// oneLine is a text without control characters.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// escaped is a text in XML.
func escaped(s string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(oneLine(s))) // a Builder takes everything
	return out.String()
}

// Measures of the SVG picture, in its pixels.
const (
	glyph   = 7 // of a letter of its font, at most
	line    = 17
	padding = 12
	gap     = 110 // between cells, for the words on agreements
	perRow  = 3   // cells side by side
)

// box is where something is drawn.
type box struct{ x, y, w, h int }

// svg draws as a picture of its own, which needs nothing else.
func svg(g *graph) string {
	all := g.Cells
	if len(g.Elsewhere) > 0 {
		all = append(all[:len(all):len(all)], graphCell{Name: "", Participants: g.Elsewhere})
	}
	width := 16 * glyph
	for _, c := range all {
		for _, p := range c.parties() {
			for _, l := range p.lines() {
				width = max(width, utf8.RuneCountInString(l)*glyph)
			}
		}
	}
	width += 2 * padding
	var drawn strings.Builder
	at := map[string]box{}
	x, y, next, right := gap/2, padding, 0, 0
	for i, c := range all {
		if i > 0 && i%perRow == 0 {
			x, y = gap/2, y+next+gap/2
			next = 0
		}
		b := box{x, y, max(width, utf8.RuneCountInString(heading(c))*glyph) + 2*padding, 0}
		h := drawCell(&drawn, c, b, at)
		x, next, right = x+b.w+gap, max(next, h), max(right, x+b.w)
	}
	between := map[[2]string]int{}
	for _, e := range g.Agreements {
		pair := [2]string{min(e.Provider, e.Consumer), max(e.Provider, e.Consumer)}
		drawAgreement(&drawn, e, at, between[pair])
		between[pair]++
	}
	y += next + padding
	legend := padding
	for _, s := range states {
		fmt.Fprintf(&drawn, `<rect x="%d" y="%d" width="14" height="14" rx="3" fill="%s" stroke="%s"/><text x="%d" y="%d">%s</text>`+"\n", legend, y, stateColours[s][0], stateColours[s][1], legend+20, y+12, s)
		legend += 100
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" role="img" font-family="ui-monospace, monospace" font-size="11">
<title>The dataspace: what runs where, and who has agreed with whom</title>
<defs><marker id="to" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="#4a4a4a"/></marker></defs>
<rect width="100%%" height="100%%" fill="#ffffff"/>
%[3]s</svg>
`, max(right+gap, legend), y+line+padding, drawn.String())
}

func heading(c graphCell) string {
	if c.Name == "" {
		return "elsewhere"
	}
	return c.label()
}

// drawCell draws a cell with what is in it, notes where that is, and returns its height.
func drawCell(out *strings.Builder, c graphCell, b box, at map[string]box) int {
	var inside strings.Builder
	y := b.y + line + 2*padding
	for i, p := range c.parties() {
		lines := p.lines()
		inner := box{b.x + padding, y, b.w - 2*padding, len(lines)*line + padding}
		at[p.ID] = inner
		colours, known := stateColours[p.State]
		if !known {
			colours = [2]string{"#ffffff", "#6b6b6b"}
		}
		radius := 4
		if i >= len(c.Participants) { // an issuer
			radius = inner.h / 2
		}
		fmt.Fprintf(&inside, `<rect x="%d" y="%d" width="%d" height="%d" rx="%d" fill="%s" stroke="%s"/>`+"\n", inner.x, inner.y, inner.w, inner.h, radius, colours[0], colours[1])
		for n, l := range lines {
			weight := "normal"
			if n == 0 {
				weight = "bold"
			}
			fmt.Fprintf(&inside, `<text x="%d" y="%d" text-anchor="middle" font-weight="%s">%s</text>`+"\n", inner.x+inner.w/2, inner.y+padding/2+(n+1)*line-5, weight, escaped(l))
		}
		y += inner.h + padding
	}
	fmt.Fprintf(out, `<rect x="%d" y="%d" width="%d" height="%d" rx="8" fill="none" stroke="#9a9a9a"/><text x="%d" y="%d" fill="#4a4a4a">%s</text>`+"\n%s",
		b.x, b.y, b.w, y-b.y, b.x+padding, b.y+padding+line/2, escaped(heading(c)), inside.String())
	return y - b.y
}

// drawAgreement draws from the one that provides to the one that uses, with what it is about in the middle, below others between the two.
func drawAgreement(out *strings.Builder, e graphAgreement, at map[string]box, others int) {
	from, ok := at[e.Provider]
	to, ok2 := at[e.Consumer]
	if !ok || !ok2 {
		return
	}
	y1, y2 := from.y+from.h/2-6+others*line, to.y+to.h/2-6+others*line
	x1, x2 := from.x+from.w, to.x
	bend1, bend2 := x1+gap/2, x2-gap/2
	switch {
	case from.x == to.x: // out of the right side, and back into it
		x2 = to.x + to.w
		bend2 = x2 + gap/2
		bend1 = bend2
	case from.x > to.x:
		x1, x2 = from.x, to.x+to.w
		bend1, bend2 = x1-gap/2, x2+gap/2
	}
	// The middle of a cubic curve.
	mx, my := (x1+3*bend1+3*bend2+x2)/8, (y1+y2)/2
	fmt.Fprintf(out, `<path d="M%d %dC%d %d %d %d %d %d" fill="none" stroke="#4a4a4a" marker-end="url(#to)"/><text x="%d" y="%d" text-anchor="middle" stroke="#ffffff" stroke-width="3" paint-order="stroke">%s</text>`+"\n",
		x1, y1, bend1, y1, bend2, y2, x2, y2, mx, my-4, escaped(e.label()))
}
