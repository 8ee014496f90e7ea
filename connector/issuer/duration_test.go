// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	from := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]string{
		"P365D": "2027-01-31T12:00:00Z", "P1Y": "2027-01-31T12:00:00Z", "P12M": "2027-01-31T12:00:00Z", "P2W": "2026-02-14T12:00:00Z",
		"PT1H30M": "2026-01-31T13:30:00Z", "P1DT1S": "2026-02-01T12:00:01Z", "P1Y2M3DT4H5M6S": "2027-04-03T16:05:06Z",
		"": "", "P": "", "PT": "", "P0D": "", "1D": "", "P1H": "", "P-1D": "", "P1.5D": "", "P99999999999D": "",
	} {
		d, err := parseDuration(s)
		if (err == nil) != (want != "") || (err == nil && d.after(from).Format(time.RFC3339) != want) {
			t.Errorf("%q: %s, %v; want %s", s, d.after(from).Format(time.RFC3339), err, want)
		}
	}
}

// A duration that is accepted leads to a later time.
func FuzzDuration(f *testing.F) {
	f.Add("P1Y2M3W4DT5H6M7S")
	f.Add("PT0S")
	f.Add("P")
	from := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil && !d.after(from).After(from) {
			t.Errorf("%s after %s is %s", s, from, d.after(from))
		}
	})
}
