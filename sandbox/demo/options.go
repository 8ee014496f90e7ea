// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/kaphera/kaphera/sandbox/internal/place"
)

// Kinds of cluster that a demo can run on.
const (
	Sandbox  = "sandbox"  // made on this machine without a container engine
	Kind     = "kind"     // made by kind with docker
	Existing = "existing" // given by its kubeconfig
)

// folder, below the repository's root, is where a demo leaves its files.
const folder = ".demo"

// Options say where the demo runs.
type Options struct {
	Cluster      string // Sandbox, Kind or Existing
	Name         string // name of the cluster, and of its domain
	Domain       string // parent of the host names; empty: NAME.kaphera.test
	IngressClass string // who serves the host names; empty on the sandbox's own clusters
	Kubeconfig   string // Existing only
	Registry     string // Existing only: where images are pushed to, for example localhost:5000/kaphera
	CAFile       string // PEM of the authority of the gateway's certificates, where there is one
	NoExchange   bool   // stop when the platform and the participants stand

	Out  io.Writer
	Live bool // Out is a terminal

	root, dir, givenDomain string
}

var nameRule = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,14}[a-z0-9])?$`)

var domainRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$`)

// settle checks the options and fills in what follows from them.
func (o *Options) settle() error {
	if !nameRule.MatchString(o.Name) {
		return fmt.Errorf("name %q: must be up to 16 lower-case letters, digits and hyphens, a letter first", o.Name)
	}
	switch o.Cluster {
	case Sandbox:
		if o.Kubeconfig != "" || o.Registry != "" || o.IngressClass != "" {
			return errors.New("KUBECONFIG, REGISTRY and INGRESS_CLASS belong to CLUSTER=existing (INGRESS_CLASS also to kind); the sandbox makes its own cluster")
		}
	case Kind:
		if o.Kubeconfig != "" || o.Registry != "" {
			return errors.New("KUBECONFIG and REGISTRY belong to CLUSTER=existing; kind makes its own cluster and is given the images directly")
		}
		if err := o.require("INGRESS_CLASS", o.IngressClass, "the class of an ingress controller that you install in the kind cluster"); err != nil {
			return err
		}
	case Existing:
		for _, r := range []struct{ name, value, what string }{
			{"KUBECONFIG", o.Kubeconfig, "the path of the cluster's kubeconfig"},
			{"REGISTRY", o.Registry, "where the images are pushed to, for example localhost:5000/kaphera"},
			{"INGRESS_CLASS", o.IngressClass, "the class of the cluster's ingress controller"},
			{"DOMAIN", o.Domain, "a domain whose host names *.DOMAIN reach that controller over TLS"},
		} {
			if err := o.require(r.name, r.value, r.what); err != nil {
				return err
			}
		}
		if _, err := os.Stat(o.Kubeconfig); err != nil {
			return fmt.Errorf("KUBECONFIG: %w", err)
		}
		var err error
		if o.Kubeconfig, err = filepath.Abs(o.Kubeconfig); err != nil {
			return err
		}
	default:
		return fmt.Errorf("CLUSTER=%s: choose sandbox, kind or existing", o.Cluster)
	}
	o.givenDomain = o.Domain
	if o.Domain == "" {
		o.Domain = o.Name + ".kaphera.test"
	}
	if !domainRule.MatchString(o.Domain) {
		return fmt.Errorf("DOMAIN=%s: must be a lower-case DNS name of two labels or more, for example demo.kaphera.test", o.Domain)
	}
	if o.CAFile != "" {
		if _, err := os.Stat(o.CAFile); err != nil {
			return fmt.Errorf("CA_FILE: %w", err)
		}
	}
	root, err := place.Root()
	if err != nil {
		return err
	}
	o.root, o.dir = root, filepath.Join(root, folder)
	if o.Name != "demo" {
		o.dir = filepath.Join(root, folder, o.Name)
	}
	return nil
}

func (o *Options) require(name, value, what string) error {
	if strings.TrimSpace(value) == "" {
		return fmt.Errorf("CLUSTER=%s needs %s: %s", o.Cluster, name, what)
	}
	return nil
}

// companyName is that of the second cluster, in which a company runs its connector itself.
func (o *Options) companyName() string {
	if o.Name == "demo" {
		return companyCell
	}
	return o.Name + "-oem"
}

// path is a file that the demo leaves for people.
func (o *Options) path(parts ...string) string {
	return filepath.Join(append([]string{o.dir}, parts...)...)
}
