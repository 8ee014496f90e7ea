// SPDX-License-Identifier: Apache-2.0

package dcp

import (
	"context"
	"log/slog"
	"time"
)

// Every calls f at once, whenever the time given has passed, and when woken (wake may be nil), until ctx ends; it returns nil. A failure is
// logged and is not worth ending a role for: the next round does what this one left.
func Every(ctx context.Context, d time.Duration, wake <-chan struct{}, log *slog.Logger, what string, f func(context.Context) error) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			log.ErrorContext(ctx, "failed; trying again", "at", what, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-wake:
		}
	}
}

// Wake wakes what waits on a channel of one place, unless that is awake anyway.
func Wake(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
