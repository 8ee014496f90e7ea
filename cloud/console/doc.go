// SPDX-License-Identifier: FSL-1.1-ALv2

// Package console is Kaphera's web console: pages rendered on the server (templ), made lively by htmx, for people who
// never open a terminal. It logs people in (authorization code with PKCE), keeps their session in a sealed cookie, and
// calls the Cloud API's service in process under the same table of rights. It holds no rule of its own.
package console

//go:generate go run github.com/a-h/templ/cmd/templ@v0.3.1100 generate
