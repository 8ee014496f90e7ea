// SPDX-License-Identifier: Apache-2.0

package choose

import (
	"slices"
	"testing"
)

func TestTheNameOrTheFirstArgumentChoosesTheProgram(t *testing.T) {
	for _, c := range []struct {
		args []string
		name string
		rest []string
	}{
		{[]string{"/cache/envtest/etcd", "--version"}, "etcd", []string{"/cache/envtest/etcd", "--version"}},
		{[]string{"/cache/kaphera-kube", "kubelet", "--v=1"}, "kubelet", []string{"kubelet", "--v=1"}},
		{[]string{"kubectl", "etcd"}, "kubectl", []string{"kubectl", "etcd"}},
		{[]string{"kaphera-kube", "unknown"}, "unknown", []string{"unknown"}},
		{[]string{"kaphera-kube"}, "kaphera-kube", []string{"kaphera-kube"}},
		{nil, "", nil},
	} {
		name, rest := Program(c.args, []string{"etcd", "kubectl", "kubelet"})
		if name != c.name || !slices.Equal(rest, c.rest) {
			t.Errorf("Program(%q) = %q, %q; want %q, %q", c.args, name, rest, c.name, c.rest)
		}
	}
}
