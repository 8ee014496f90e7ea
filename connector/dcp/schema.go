// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const (
	maxSchema       = 256 << 10
	maxSchemaLoads  = 5 // a schema and what it refers to
	maxSchemaCached = 200
	schemaCache     = 5 * time.Minute
)

type cachedSchema struct {
	schema  *jsonschema.Schema
	fetched time.Time
}

// checkSchemas validates a credential with the schemas that it names; drafts 4 to 2020-12.
func (v *Verifier) checkSchemas(ctx context.Context, c *Credential) error {
	for _, ref := range c.Schemas {
		var subject any
		switch ref.Type {
		case "JsonSchemaValidator2018": // VCDM 1.1: about the subject
			subject = any(c.Subjects[0])
		case "JsonSchema": // VC JSON Schema 1.0: about the credential
			subject = any(c.whole)
		default:
			return fmt.Errorf("it names the schema %s of type %q, which cannot be checked here", ref.ID, ref.Type)
		}
		schema, err := v.schema(ctx, ref.ID)
		if err != nil {
			return fmt.Errorf("its schema %s could not be read: %w", ref.ID, err)
		}
		if err := schema.Validate(subject); err != nil {
			return fmt.Errorf("it does not follow its schema %s: %s", ref.ID, excerpt([]byte(err.Error())))
		}
	}
	return nil
}

func (v *Verifier) schema(ctx context.Context, id string) (*jsonschema.Schema, error) {
	v.mu.Lock()
	hit, ok := v.schemas[id]
	v.mu.Unlock()
	if ok && v.now().Sub(hit.fetched) < schemaCache {
		return hit.schema, nil
	}
	if u, err := url.Parse(id); err != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("%q is not an http(s) address", id)
	}
	compiler := jsonschema.NewCompiler()
	compiler.UseLoader(&schemaLoader{ctx: ctx, v: v})
	schema, err := compiler.Compile(id)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.schemas) >= maxSchemaCached {
		clear(v.schemas)
	}
	v.schemas[id] = cachedSchema{schema: schema, fetched: v.now()}
	return schema, nil
}

// schemaLoader fetches a schema and the few it may refer to; the meta-schemas are built in.
type schemaLoader struct {
	ctx   context.Context //nolint:containedctx // the library's interface has none, and a loader lives for one compilation
	v     *Verifier
	loads int
}

// Load implements jsonschema.URLLoader.
func (l *schemaLoader) Load(address string) (any, error) {
	if l.loads++; l.loads > maxSchemaLoads {
		return nil, fmt.Errorf("it refers to more than %d other schemas", maxSchemaLoads-1)
	}
	if !strings.HasPrefix(address, "http://") && !strings.HasPrefix(address, "https://") {
		return nil, fmt.Errorf("%q is not an http(s) address", address)
	}
	raw, err := Get(l.ctx, l.v.http, address, "application/schema+json, application/json, */*;q=0.1", "", maxSchema)
	if err != nil {
		return nil, err
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(raw))
}
