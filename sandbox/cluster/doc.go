// SPDX-License-Identifier: Apache-2.0

// Package cluster makes, repairs and removes real one-node Kubernetes clusters
// on this machine, each in a network namespace of its own.
//
// Here belongs what touches the machine: processes, namespaces, cgroups,
// mounts, certificates and component configuration. What serves requests inside
// a cluster (the gateway, the volume provisioner) has packages of its own;
// building images does too.
package cluster
