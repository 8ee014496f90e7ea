// SPDX-License-Identifier: FSL-1.1-ALv2

package config_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/cloudoperator/config"
)

func TestInstallFileIsUpToDate(t *testing.T) {
	t.Parallel()
	want, err := config.Install(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("install.yaml differs from its parts: run go generate ./cloudoperator/config")
	}
}

func TestInstallTakesImages(t *testing.T) {
	t.Parallel()
	raw, err := config.Install(map[string]string{config.OperatorImage: "registry.example/operator:1"})
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if !strings.Contains(text, "image: registry.example/operator:1\n") || !strings.Contains(text, "value: registry.example/operator:1\n") || strings.Contains(text, config.OperatorImage) {
		t.Error("the operator's image is not replaced everywhere")
	}
	if !strings.Contains(text, "value: kaphera.local/connector:dev\n") {
		t.Error("an image that was not named is gone")
	}
}
