// SPDX-License-Identifier: Apache-2.0

// Package choose finds out which program of a multi-call binary is meant. It
// stands alone so that its test need not link them all.
package choose

import (
	"path/filepath"
	"slices"
)

// Program returns the program's name and its own argument list, name first: the
// name that the binary was started by if that is a program's, else the first
// argument.
func Program(args, programs []string) (name string, own []string) {
	if len(args) == 0 {
		return "", nil
	}
	name = filepath.Base(args[0])
	if !slices.Contains(programs, name) && len(args) > 1 {
		return args[1], args[1:]
	}
	return name, args
}
