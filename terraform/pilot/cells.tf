# SPDX-License-Identifier: Apache-2.0

resource "kaphera_cell" "shared" {
  name            = "shared"
  type            = "shared"
  hostname        = "shared.${var.domain}"
  operating_party = "Kaphera Cloud"

  # With "policy", which is not there unless it is named: the pilot shows what connectors saw of each other's credentials.
  audit = {
    leaving = [
      "participant.made", "participant.changed", "participant.deleted", "participant.restored", "profile", "management", "negotiation.transition", "transfer.transition", "agreement",
      "policy", "gate", "credential", "usecase.revision", "data.intent", "data.outcome", "data.fetched", "counterparty.head", "audit.pruned",
    ]
  }
}
