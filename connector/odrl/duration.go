// SPDX-License-Identifier: Apache-2.0

package odrl

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is an ISO 8601 duration with its calendar parts kept apart: P12M is twelve calendar months, not 365 days.
type Duration struct {
	Years, Months, Days int // a week is 7 days
	Clock               time.Duration
}

// As many digits as a time.Duration holds.
var durationForm = regexp.MustCompile(`^P(?:(\d{1,6})Y)?(?:(\d{1,6})M)?(?:(\d{1,6})W)?(?:(\d{1,6})D)?(T(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?$`)

// ParseDuration reads an ISO 8601 duration such as P12M, P1Y6M, P2W, P30D or PT36H. Signs and fractions other than of seconds are refused.
func ParseDuration(s string) (Duration, error) {
	m := durationForm.FindStringSubmatch(s)
	if m == nil || s == "P" || strings.HasSuffix(s, "T") {
		return Duration{}, fmt.Errorf("%q is not an ISO 8601 duration: write for example P12M (twelve months) or P30D (thirty days)", s)
	}
	n := func(i int) int { v, _ := strconv.Atoi(m[i]); return v } // digits only, or empty for 0
	seconds, _ := strconv.ParseFloat("0"+m[8], 64)
	return Duration{
		Years: n(1), Months: n(2), Days: 7*n(3) + n(4),
		Clock: time.Duration(n(6))*time.Hour + time.Duration(n(7))*time.Minute + time.Duration(seconds*float64(time.Second)),
	}, nil
}

// After returns t plus the duration by the UTC calendar. A day that the resulting month does not have becomes its last day:
// 29 February 2024 plus P12M is 28 February 2025.
func (d Duration) After(t time.Time) time.Time {
	t = t.UTC()
	months := 12*d.Years + d.Months
	first := time.Date(t.Year(), t.Month()+time.Month(months), 1, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(t.Day(), last)-1+d.Days).Add(d.Clock)
}

// Words returns the duration for people: "12 months", "12 Monate".
func (d Duration) Words(lang string) string {
	units := []struct {
		n                int
		en, ens, de, des string
	}{
		{d.Years, "year", "years", "Jahr", "Jahre"}, {d.Months, "month", "months", "Monat", "Monate"}, {d.Days, "day", "days", "Tag", "Tage"},
		{int(d.Clock.Hours()), "hour", "hours", "Stunde", "Stunden"}, {int(d.Clock.Minutes()) % 60, "minute", "minutes", "Minute", "Minuten"},
		{int(d.Clock.Seconds()) % 60, "second", "seconds", "Sekunde", "Sekunden"},
	}
	var parts []string
	for _, u := range units {
		word := map[bool]string{true: u.en, false: u.ens}[u.n == 1]
		if lang == "de" {
			word = map[bool]string{true: u.de, false: u.des}[u.n == 1]
		}
		if u.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", u.n, word))
		}
	}
	if len(parts) == 0 {
		return map[bool]string{true: "0 Sekunden", false: "0 seconds"}[lang == "de"]
	}
	return strings.Join(parts, " ")
}
