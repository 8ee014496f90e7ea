# SPDX-License-Identifier: Apache-2.0

resource "kaphera_cell" "shared" {
  name            = "shared"
  type            = "shared"
  hostname        = "shared.${var.domain}"
  operating_party = "Kaphera Cloud"
}
