// SPDX-License-Identifier: Apache-2.0

// Command kaphera-kube is every program of a small Kubernetes cluster in one
// binary: the name it is started by, or its first argument, picks the program.
// It holds no code of its own beyond that choice.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// programs maps a program's name to what runs it with os.Args[1:] as its flags.
var programs = map[string]func() int{
	"etcd":                    runEtcd,
	"kube-apiserver":          run(apiserver.NewAPIServerCommand),
	"kube-controller-manager": run(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          run(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              run(proxy.NewProxyCommand),
	"kubelet":                 runKubelet,
	"kubectl":                 runKubectl,
}

func main() {
	name, args := choose(os.Args)
	start, ok := programs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "kaphera-kube: no program %q; the first argument, or the name of the link it is started by, must be one of %s\n", name, known())
		os.Exit(2)
	}
	os.Args = args
	os.Exit(start())
}

// choose returns the program's name and its own argument list (name first).
func choose(args []string) (string, []string) {
	if len(args) == 0 {
		return "", nil
	}
	name := filepath.Base(args[0])
	if _, ok := programs[name]; !ok && len(args) > 1 {
		return args[1], args[1:]
	}
	return name, args
}

func known() string {
	names := make([]string, 0, len(programs))
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func run(newCommand func() *cobra.Command) func() int {
	return func() int { return cli.Run(newCommand()) }
}

func runKubelet() int {
	return cli.Run(kubelet.NewKubeletCommand(context.Background()))
}

func runKubectl() int {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
		return 1
	}
	return 0
}

func runEtcd() int {
	etcdmain.Main(os.Args)
	return 0
}
