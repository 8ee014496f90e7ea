// SPDX-License-Identifier: Apache-2.0

package limits

import "sync"

// Shares bounds how much each of many parties may have under way at once, so that one of them leaves room for the others. It is safe for
// concurrent use.
type Shares struct {
	most    int
	mu      sync.Mutex
	byParty map[string]int
}

// NewShares makes shares of most each.
func NewShares(most int) *Shares { return &Shares{most: most, byParty: map[string]int{}} }

// Enter takes a place of a party's share until leave is called; not ok when the share is used up. A party without a name has none.
func (s *Shares) Enter(party string) (leave func(), ok bool) {
	if party == "" {
		return func() {}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byParty[party] >= s.most {
		return nil, false
	}
	s.byParty[party]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.byParty[party]--; s.byParty[party] == 0 {
			delete(s.byParty, party)
		}
	}, true
}
