# SPDX-License-Identifier: Apache-2.0

module "oem" {
  source = "../modules/participant"

  name    = "oem"
  cell    = local.on_premise ? kaphera_cell_installation.frankfurt[0].cell : kaphera_cell.shared.name
  profile = kaphera_dataspace_profile.automotive.name

  organization = {
    name          = local.oem
    display_name  = "Rheintal Motoren AG"
    contact_email = "dataspace@rheintal-motoren.example"
  }
  identity = { context = "rheintal-motoren", business_partner_number = "BPNL00000000OEM1" }

  credentials = {
    MembershipCredential = {
      claims = {
        holderIdentifier    = "BPNL00000000OEM1"
        memberOf            = "Automotive pilot"
        membershipStartDate = "2026-02-01T00:00:00Z"
      }
    }
  }
}

module "supplier" {
  source = "../modules/participant"

  name    = "supplier"
  cell    = kaphera_cell.shared.name
  profile = kaphera_dataspace_profile.automotive.name

  organization = {
    name          = local.supplier
    display_name  = "Brandt Guss GmbH"
    contact_email = "dataspace@brandt-guss.example"
  }
  identity = { context = "brandt-guss", business_partner_number = "BPNL0000000CAST1" }

  credentials = {
    MembershipCredential = {
      claims = {
        holderIdentifier    = "BPNL0000000CAST1"
        memberOf            = "Automotive pilot"
        membershipStartDate = "2026-03-15T00:00:00Z"
      }
    }
    DataQualityAttestationCredential = {
      claims = {
        attestationId = "DQA-2026-0417"
        standardName  = "ISO 14067"
        providerName  = "Prüfhaus Nord GmbH"
        completedAt   = var.attestation_completed_at
      }
    }
  }
}
