// SPDX-License-Identifier: Apache-2.0

// Package apiserver starts a real Kubernetes API server for controller tests. It knows no kinds and waits for none.
package apiserver

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Start runs etcd and kube-apiserver with the CRDs of the given files or folders; the caller stops the environment. The programs
// come from KUBEBUILDER_ASSETS or Kaphera's cache, where `make envtest` puts them.
func Start(crds ...string) (*envtest.Environment, error) {
	assets, err := Assets()
	if err != nil {
		return nil, err
	}
	env := &envtest.Environment{
		CRDDirectoryPaths: crds, ErrorIfCRDPathMissing: true, BinaryAssetsDirectory: assets,
		ControlPlaneStartTimeout: 2 * time.Minute, ControlPlaneStopTimeout: time.Minute,
	}
	env.ControlPlane.GetAPIServer().Configure().Append("enable-admission-plugins", "OwnerReferencesPermissionEnforcement")
	if _, err := env.Start(); err != nil {
		return nil, fmt.Errorf("start the API server of %s: %w", assets, err)
	}
	return env, nil
}

// Assets is the folder of etcd, kube-apiserver and kubectl.
func Assets() (string, error) {
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" {
		return dir, nil
	}
	cache := os.Getenv("KAPHERA_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache: %w", err)
		}
		cache = filepath.Join(user, "kaphera")
	}
	dir := filepath.Join(cache, "envtest")
	if _, err := os.Stat(filepath.Join(dir, "kube-apiserver")); err != nil { // #nosec G703 -- whoever runs the tests names the folder
		return "", fmt.Errorf("no kube-apiserver in %s: run make envtest (%w)", dir, err)
	}
	return dir, nil
}
