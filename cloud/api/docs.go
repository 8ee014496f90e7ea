// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// docsStyle is inline, so that the page is one file; the policy names it by its hash.
const docsStyle = `:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.6rem}code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}table{width:100%;border-collapse:collapse;margin-top:1rem}
th,td{text-align:left;vertical-align:top;padding:.5rem .8rem .5rem 0;border-bottom:1px solid #8884}thead th{font-size:.85rem;opacity:.7}`

var docsPage = template.Must(template.New("docs").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{{.Title}}</title><style>` + docsStyle + `</style></head>
<body><h1>{{.Title}} {{.Version}}</h1><p>{{.Description}}</p>
<p>The whole of it, for programs: <a href="openapi.json">openapi.json</a>, <a href="openapi.yaml">openapi.yaml</a> (OpenAPI 3.1).
Every call but /info carries an OpenID Connect access token: <code>Authorization: Bearer …</code>. Errors are RFC 9457 problems with <code>detail</code> and <code>next</code>.</p>
<table><thead><tr><th scope="col">Call</th><th scope="col">What it does</th><th scope="col">Operation</th></tr></thead><tbody>
{{range .Calls}}<tr><td><code>{{.Method}} {{.Path}}</code></td><td>{{.Summary}}</td><td>{{.ID}}</td></tr>
{{end}}</tbody></table></body></html>
`))

type docsCall struct{ Method, Path, Summary, ID string }

// docs is a page about the API without a script or anything from elsewhere.
func docs(doc *huma.OpenAPI) http.Handler {
	page := struct {
		Title, Version, Description string
		Calls                       []docsCall
	}{Title: doc.Info.Title, Version: doc.Info.Version, Description: doc.Info.Description}
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete} {
			if op != nil {
				page.Calls = append(page.Calls, docsCall{method, path, op.Summary, op.OperationID})
			}
		}
	}
	slices.SortFunc(page.Calls, func(a, b docsCall) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
	hash := sha256.Sum256([]byte(docsStyle))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", policy)
		_ = docsPage.Execute(w, page) // the caller has gone, then
	})
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) //nolint:errchkjson // the caller has gone, then
}
