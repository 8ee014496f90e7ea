// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	maxDocument   = 256 << 10
	maxCachedDocs = 5_000
	// minRefresh keeps messages with made-up key ids from making us fetch a document again and again.
	minRefresh = time.Second
)

// Resolver fetches DID documents of did:web and believes them for a while.
type Resolver struct {
	http      *http.Client
	plainHTTP bool
	cacheFor  time.Duration
	now       func() time.Time

	mu    sync.Mutex
	cache map[string]cachedDoc
}

type cachedDoc struct {
	doc     *Document
	fetched time.Time
}

func newResolver(client *http.Client, plainHTTP bool, cacheFor time.Duration, now func() time.Time) *Resolver {
	return &Resolver{http: client, plainHTTP: plainHTTP, cacheFor: cacheFor, now: now, cache: map[string]cachedDoc{}}
}

// Resolve returns the document of a DID.
func (r *Resolver) Resolve(ctx context.Context, did string) (*Document, error) {
	doc, _, err := r.resolve(ctx, did, r.cacheFor)
	return doc, err
}

// resolve returns a document fetched no longer than maxAge ago, and whether it was fetched just now.
func (r *Resolver) resolve(ctx context.Context, did string, maxAge time.Duration) (*Document, bool, error) {
	url, err := WebURL(did, r.plainHTTP)
	if err != nil {
		return nil, false, err
	}
	r.mu.Lock()
	hit, ok := r.cache[did]
	r.mu.Unlock()
	if ok && r.now().Sub(hit.fetched) < maxAge {
		return hit.doc, false, nil
	}
	raw, err := Get(ctx, r.http, url, "application/did+json, application/did+ld+json, application/json", "", maxDocument)
	if err != nil {
		return nil, false, fmt.Errorf("fetch the DID document of %s: %w", did, err)
	}
	doc, err := ParseDocument(raw, did)
	if err != nil {
		return nil, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for other := range r.cache {
		if len(r.cache) < maxCachedDocs {
			break
		}
		delete(r.cache, other) // any: strangers' documents must not push out all others at once
	}
	r.cache[did] = cachedDoc{doc: doc, fetched: r.now()}
	return doc, true, nil
}
