# SPDX-License-Identifier: Apache-2.0

terraform {
  required_version = ">= 1.8"

  # Kept beside the workspace unless told otherwise: tofu init -backend-config=path=…
  backend "local" {}

  required_providers {
    kaphera = {
      source  = "kaphera.dev/kaphera/kaphera"
      version = ">= 0.1.0"
    }
  }
}

# Address and log-in come from KAPHERA_API, KAPHERA_CA_FILE, KAPHERA_CLIENT_ID and KAPHERA_CLIENT_SECRET.
provider "kaphera" {}
