// SPDX-License-Identifier: Apache-2.0

package image

// Keycloak is the server with a Java runtime.
func Keycloak() Recipe { return recipe{name: "keycloak", tag: "26"} }
