// SPDX-License-Identifier: Apache-2.0

// Package interop lets this connector and Eclipse EDC, assembled from Maven Central by edc/pom.xml, negotiate and transfer with each other
// in both directions: with EDC's mock identity first, then with DCP, where EDC's credentials are in its IdentityHub and ours in our
// wallet. Both connectors are processes of their own, and both are driven by the same client of the EDC Management API.
//
// `make interop` runs it. INTEROP_LOG names a folder for the logs of all processes; INTEROP_MEASURE=1 measures negotiations as well.
package interop
