// SPDX-License-Identifier: Apache-2.0

// Package cli is the program kaphera: the Cloud API for people at a terminal, and for scripts. One file per command; what
// they share is in app.go (streams, client), login state in store.go, output in output.go and words.go, exit codes in
// exit.go. It talks to the Cloud API through client/ only; the one exception is the demo's path to its backend.
package cli
