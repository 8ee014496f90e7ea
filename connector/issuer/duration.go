// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// duration is an ISO 8601 duration; years, months, weeks and days are counted by calendar.
type duration struct {
	years, months, days int
	clock               time.Duration
}

var isoDuration = regexp.MustCompile(`^P(?:(\d{1,4})Y)?(?:(\d{1,5})M)?(?:(\d{1,5})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,9})S)?)?$`)

func parseDuration(s string) (duration, error) {
	m := isoDuration.FindStringSubmatch(s)
	if m == nil {
		return duration{}, fmt.Errorf("%q is not an ISO 8601 duration such as P365D, P1Y or PT1H", s)
	}
	n := make([]int, len(m))
	for i, digits := range m[1:] {
		if digits != "" {
			n[i+1], _ = strconv.Atoi(digits) // the expression lets nothing through that is not a small number
		}
	}
	d := duration{
		years: n[1], months: n[2], days: 7*n[3] + n[4],
		clock: time.Duration(n[5])*time.Hour + time.Duration(n[6])*time.Minute + time.Duration(n[7])*time.Second,
	}
	if d == (duration{}) {
		return duration{}, fmt.Errorf("%q is no time at all", s)
	}
	return d, nil
}

func (d duration) after(t time.Time) time.Time {
	return t.AddDate(d.years, d.months, d.days).Add(d.clock)
}
