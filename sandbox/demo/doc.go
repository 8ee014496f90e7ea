// SPDX-License-Identifier: Apache-2.0

// Package demo is what `make demo` does: it builds what is missing, makes or
// takes a cluster, installs Kaphera on it with the manifests that anybody would
// use, applies the pilot workspace and runs the exchange. Every step can be
// interrupted and repeated. It calls the other sandbox packages and the
// project's own programs; it contains no part of the product.
package demo
