// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/kaphera/kaphera/edcoperator/config"
)

func TestInstallFileIsUpToDate(t *testing.T) {
	t.Parallel()
	want, err := config.Install(config.OperatorImage, config.ConnectorImage)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("install.yaml differs from its parts: run go generate ./edcoperator/config")
	}
}

func TestInstallTakesImages(t *testing.T) {
	t.Parallel()
	raw, err := config.Install("registry.example/operator:1", "registry.example/connector:2")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"image: registry.example/operator:1\n", "value: registry.example/connector:2\n"} {
		if strings.Count(string(raw), want) != 1 {
			t.Errorf("install does not hold %q once", want)
		}
	}
	if strings.Contains(string(raw), "kaphera.local/") {
		t.Error("a default image is left")
	}
}
