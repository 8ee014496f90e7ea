// SPDX-License-Identifier: Apache-2.0

// Package gateway lets host names reach Services of a sandbox cluster: a TLS
// reverse proxy that follows the cluster's Ingress objects, signs certificates
// with the cluster's own authority and keeps the machine's hosts file in step.
//
// Every public host name is served with TLS, whether or not its Ingress asks
// for it; certificates that an Ingress names are not read.
package gateway
