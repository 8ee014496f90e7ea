// SPDX-License-Identifier: Apache-2.0

// Package jsondepth refuses JSON that is nested deeper than any message has reason to be, before it is decoded: decoding, expanding and
// comparing it recurse.
package jsondepth

import "fmt"

// Max is how deep a message may be nested. The deepest that the specifications show have ten levels.
const Max = 64

// Check says whether raw is nested deeper than Max; whether it is JSON is for the decoder to find out.
func Check(raw []byte) error {
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > Max {
				return fmt.Errorf("it is nested deeper than %d levels", Max)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}
