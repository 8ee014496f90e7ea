// SPDX-License-Identifier: FSL-1.1-ALv2

// Package controllertest holds the operator's tests against a real API server and real servers; see suite_test.go. No program imports it.
package controllertest
