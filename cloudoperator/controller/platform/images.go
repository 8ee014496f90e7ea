// SPDX-License-Identifier: FSL-1.1-ALv2

package platform

import (
	"os"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

// ImagesFromEnv are the images that this operator was released with: RELATED_IMAGE_<PART>, else the names that the sandbox builds.
func ImagesFromEnv() cloud.PlatformImages {
	get := func(part, fallback string) string {
		if v := os.Getenv("RELATED_IMAGE_" + part); v != "" {
			return v
		}
		return "kaphera.local/" + fallback
	}
	return cloud.PlatformImages{
		PostgreSQL: get("POSTGRESQL", "postgresql:15"), OpenBao: get("OPENBAO", "openbao:2"), NATS: get("NATS", "nats:2"),
		Keycloak: get("KEYCLOAK", "keycloak:26"), Cloud: get("CLOUD", "cloud:dev"), Agent: get("AGENT", "cloud-operator:dev"),
		Connector: get("CONNECTOR", "connector:dev"), EDCOperator: get("EDC_OPERATOR", "edc-operator:dev"),
	}
}

// Images of a platform: those of its spec, and the defaults for the rest.
func Images(p *cloud.Platform, defaults cloud.PlatformImages) cloud.PlatformImages {
	pick := func(own, fallback string) string {
		if own != "" {
			return own
		}
		return fallback
	}
	s := p.Spec.Images
	return cloud.PlatformImages{
		PostgreSQL: pick(s.PostgreSQL, defaults.PostgreSQL), OpenBao: pick(s.OpenBao, defaults.OpenBao), NATS: pick(s.NATS, defaults.NATS),
		Keycloak: pick(s.Keycloak, defaults.Keycloak), Cloud: pick(s.Cloud, defaults.Cloud), Agent: pick(s.Agent, defaults.Agent),
		Connector: pick(s.Connector, defaults.Connector), EDCOperator: pick(s.EDCOperator, defaults.EDCOperator),
	}
}
