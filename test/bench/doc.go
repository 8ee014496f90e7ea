// SPDX-License-Identifier: Apache-2.0

// Package bench measures Kaphera and Eclipse EDC in one run and prints how they compare. See README.md.
package bench
