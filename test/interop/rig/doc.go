// SPDX-License-Identifier: Apache-2.0

// Package rig starts Kaphera and Eclipse EDC as processes of their own and drives both by the same client of the EDC Management API. The
// tests of interop and bench use it; their TestMain calls Main. INTEROP_LOG names a folder for the logs of all processes.
package rig
