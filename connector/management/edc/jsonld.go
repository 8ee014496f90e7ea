// SPDX-License-Identifier: Apache-2.0

package edc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/piprate/json-gold/ld"

	"github.com/kaphera/kaphera/connector/jsondepth"
	"github.com/kaphera/kaphera/connector/odrl"
)

// Version is a version of the API: how documents are written.
type Version string

// Versions. V4Beta is the path of V4 before EDC 0.16.
const (
	V3     Version = "v3"
	V4Beta Version = "v4beta"
	V4     Version = "v4"
)

// Limits of a document, far above what clients write.
const (
	maxBody     = 2 << 20
	maxDepth    = 48
	maxNodes    = 20_000
	maxContexts = 50 // each takes the processor about a millisecond
)

// loader serves the bundled contexts and nothing else; it remembers the first other one that a document names.
type loader struct{ unknown string }

func (l *loader) LoadDocument(u string) (*ld.RemoteDocument, error) {
	doc, ok := bundled[u]
	if !ok {
		l.unknown = cmp.Or(l.unknown, u)
		return nil, ld.NewJsonLdError(ld.LoadingRemoteContextFailed, u)
	}
	return &ld.RemoteDocument{DocumentURL: u, Document: ld.CloneDocument(doc)}, nil
}

func (l *loader) options(base any) *ld.JsonLdOptions {
	o := ld.NewJsonLdOptions("")
	o.DocumentLoader, o.ExpandContext = l, base
	return o
}

// read parses a document of a version and expands it. Terms mean what the contexts say; what they do not define is EDC's. A document
// without @type has the type typ. The result has EDC's terms bare, other IRIs in full, single values instead of lists of one, and plain
// values: {"@id": …} only where a reference stands.
func read(v Version, raw []byte, typ string) (doc map[string]any, err error) {
	tree, err := parse(raw)
	if err != nil {
		return nil, err
	}
	in, ok := tree.(map[string]any)
	if !ok {
		return nil, invalid("$", "the body must be a JSON object")
	}
	if _, ok := in["@type"]; !ok {
		in["@type"] = typ
	}
	base := []any{baseV3}
	if v != V3 {
		base = append(base, contextV4)
	}
	defer func() { // the processor asserts types of what is not JSON-LD
		if r := recover(); r != nil {
			doc, err = nil, invalid("$", "the body is not valid JSON-LD")
		}
	}()
	l := &loader{}
	expanded, err := ld.NewJsonLdProcessor().Expand(in, l.options(map[string]any{"@context": base}))
	switch {
	case l.unknown != "":
		return nil, invalidValue("$.@context", l.unknown, "the context %q is not bundled with this connector, and contexts are never fetched: "+
			"write the terms that you need from it as full IRIs, or define them in @context", l.unknown)
	case err != nil:
		return nil, invalid("$", "the body is not valid JSON-LD: "+err.Error())
	}
	if len(expanded) != 1 {
		return map[string]any{}, nil
	}
	doc, ok = plain(expanded[0]).(map[string]any)
	if !ok {
		return nil, invalid("$", "the body is not a JSON-LD object")
	}
	return doc, nil
}

// parse reads JSON within the limits.
func parse(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	depth, nodes, contexts := 0, 0, 0
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, invalid("$", "the body is not valid JSON: "+err.Error())
		}
		nodes++
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		s, _ := t.(string)
		if strings.ContainsRune(s, 0) {
			return nil, invalid("$", "the body holds a NUL character, which can't be stored")
		}
		if s == "@context" {
			contexts++
		}
		if depth > maxDepth || nodes > maxNodes || contexts > maxContexts {
			return nil, invalid("$", fmt.Sprintf("the body is nested more than %d deep, or holds more than %d values or %d contexts", maxDepth, maxNodes, maxContexts))
		}
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, invalid("$", "the body is not valid JSON: "+err.Error())
	}
	if path, name := jsondepth.Twice(raw); name != "" {
		return nil, invalid(path, fmt.Sprintf("member %q stands there twice", name))
	}
	return tree, nil
}

// plain simplifies expanded JSON-LD.
func plain(v any) any {
	switch t := v.(type) {
	case []any:
		out := make([]any, len(t))
		for i, item := range t {
			out[i] = plain(item)
		}
		if len(out) == 1 {
			return out[0]
		}
		return out
	case map[string]any:
		if value, ok := t["@value"]; ok && (len(t) == 1 || t["@type"] == ld.XSDString || t["@type"] == "@json") {
			return value
		}
		if list, ok := t["@list"].([]any); ok && len(t) == 1 {
			out := make([]any, len(list))
			for i, item := range list {
				out[i] = plain(item)
			}
			return out
		}
		out := make(map[string]any, len(t))
		for k, item := range t {
			if k != namespace {
				k = strings.TrimPrefix(k, namespace)
			}
			out[k] = plain(item)
		}
		return out
	}
	return v
}

// write compacts documents in the style of a version. They have EDC's terms bare, as read returns them.
func write(v Version, docs ...map[string]any) ([]any, error) {
	in := make([]any, len(docs))
	var context any = contextV3
	for i, d := range docs {
		in[i] = ld.CloneDocument(d)
		if slices.ContainsFunc(slices.Collect(maps.Keys(d)), func(k string) bool { return strings.HasPrefix(k, tractusxTokens) }) {
			more := maps.Clone(contextV3)
			more["tx-auth"] = tractusxTokens
			context = more
		}
	}
	compact := context
	if v != V3 {
		context, compact = []any{contextV4}, scopedTo(in)
	}
	l := &loader{}
	expanded, err := ld.NewJsonLdProcessor().Expand(in, l.options(map[string]any{"@context": baseV3}))
	if err != nil {
		return nil, err
	}
	out, err := ld.NewJsonLdProcessor().Compact(expanded, map[string]any{"@context": compact}, l.options(nil))
	if err != nil {
		return nil, err
	}
	all, ok := out["@graph"].([]any)
	if !ok {
		all = []any{out}
	}
	for _, o := range all {
		o.(map[string]any)["@context"] = context //nolint:forcetypeassert // documents are objects
	}
	return all[:len(docs)], nil
}

// scopedTo is the part of version 4's context that documents need: the whole of it takes the processor much longer.
func scopedTo(v any) map[string]any {
	out := map[string]any{"@version": 1.1, "edc": namespace, "dct": dcterms, "odrl": odrl.Namespace}
	var walk func(any)
	walk = func(v any) {
		switch t := v.(type) {
		case []any:
			for _, item := range t {
				walk(item)
			}
		case map[string]any:
			if name, ok := t["@type"].(string); ok && management[name] != nil {
				out[name] = management[name]
			}
			for _, item := range t {
				walk(item)
			}
		}
	}
	walk(v)
	return out
}
