# SPDX-License-Identifier: Apache-2.0

# One participant: organization, identity, cell. The same for every deployment model.

terraform {
  required_version = ">= 1.8"
  required_providers {
    kaphera = {
      source  = "kaphera.dev/kaphera/kaphera"
      version = ">= 0.1.0"
    }
  }
}

resource "kaphera_organization" "this" {
  name          = var.organization.name
  display_name  = var.organization.display_name
  contact_email = var.organization.contact_email
}

resource "kaphera_participant" "this" {
  name         = var.name
  organization = kaphera_organization.this.name
  cell         = var.cell
  profile      = var.profile

  further_profiles = var.further_profiles

  identity = {
    context                 = var.identity.context
    business_partner_number = var.identity.business_partner_number
  }

  operating_party = var.operating_party
  credentials     = var.credentials
}
