# SPDX-License-Identifier: Apache-2.0

# The OEM's own premises: a cell in its cluster in Frankfurt, on its PostgreSQL and its Vault, which nobody here reads. Apply it from where that
# cluster's API server is reached. Without a kubeconfig of it the OEM takes part from the shared cell.
#
# The first time: apply with -target=kaphera_cell.frankfurt, which asks nothing of the cluster; its administrator applies what
# `kaphera cell permissions oem-frankfurt` writes, and hands out a kubeconfig of the account that is in it; then apply everything.

locals {
  on_premise = var.company_kubeconfig != ""
  company_ca = local.on_premise ? file(var.company_ca_file) : ""
}

resource "kaphera_cell" "frankfurt" {
  count = local.on_premise ? 1 : 0

  name            = "oem-frankfurt"
  type            = "on-premise"
  organization    = module.oem.organization
  hostname        = "dataspace.${var.company_domain}"
  operating_party = "Rheintal Motoren AG"

  database = {
    host         = "postgresql.industrial.svc"
    name         = "dataspace"
    ca_bundle    = local.company_ca
    owner_secret = "dataspace-account"
  }

  vault = {
    address   = "https://openbao.industrial.svc:8200"
    mount     = "industrial/kv"
    prefix    = "dataspace"
    ca_bundle = local.company_ca
    auth      = { method = "Kubernetes", mount_path = "plant" }
  }

  audit = { leaving = local.leaving }
}

# As kaphera-cell-installer, whose rights docs/on-premise.md lists verb by verb.
provider "kaphera" {
  alias      = "frankfurt"
  kubernetes = local.on_premise ? { config_path = var.company_kubeconfig } : null
}

resource "kaphera_cell_installation" "frankfurt" {
  count    = local.on_premise ? 1 : 0
  provider = kaphera.frankfurt

  cell = kaphera_cell.frankfurt[0].name
}
