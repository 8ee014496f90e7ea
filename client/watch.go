// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// WatchNegotiation calls each for the negotiation as it is now and after every change, until it has ended, each returns an error (which is
// returned), or the context ends.
func (a *API) WatchNegotiation(ctx context.Context, participant, id string, each func(Negotiation) error) error {
	stream := *a.http
	stream.Timeout = 0 // the context bounds it
	watcher := doer{&API{http: &stream, cfg: a.cfg}}
	r, err := NewWatchNegotiationRequest(strings.TrimSuffix(a.cfg.API, "/")+"/", participant, id)
	if err != nil {
		return fmt.Errorf("watching negotiation %q: %w", id, err)
	}
	resp, err := watcher.Do(r.WithContext(ctx))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return readEvents(resp, a.cfg.API, each)
}

func readEvents(resp *http.Response, api string, each func(Negotiation) error) error {
	const longest = 4 << 20 // a negotiation with its traces
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 64<<10), longest)
	event, state := "", ""
	for lines.Scan() {
		line := lines.Text()
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			event = name
			continue
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		switch event {
		case "negotiation":
			var n Negotiation
			if err := json.Unmarshal([]byte(data), &n); err != nil {
				return fmt.Errorf("event of %s: %w", api, err)
			}
			state = n.State
			if err := each(n); err != nil {
				return err
			}
		case "problem":
			e := &Error{}
			if err := json.Unmarshal([]byte(data), &e.Problem); err != nil || e.Detail == "" {
				return fmt.Errorf("event of %s: a problem that does not say what it is: %.200q", api, data)
			}
			return e
		}
	}
	if err := lines.Err(); err != nil {
		return unreachable(api, err)
	}
	if state != "FINALIZED" && state != "TERMINATED" {
		return unreachable(api, fmt.Errorf("the stream ended while the negotiation was in state %s", state))
	}
	return nil
}
