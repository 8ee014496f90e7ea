# SPDX-License-Identifier: Apache-2.0

locals {
  # What of the audit trail leaves a cell. With "policy", which is not there unless it is named: the pilot shows what connectors saw of each other's credentials.
  leaving = [
    "participant.made", "participant.changed", "participant.deleted", "participant.restored", "profile", "management", "negotiation.transition", "transfer.transition", "agreement",
    "policy", "gate", "credential", "usecase.revision", "data.intent", "data.outcome", "data.fetched", "counterparty.head", "audit.pruned",
  ]
}

resource "kaphera_cell" "shared" {
  name            = "shared"
  type            = "shared"
  hostname        = "shared.${var.domain}"
  operating_party = "Kaphera Cloud"

  audit = { leaving = local.leaving }
}
