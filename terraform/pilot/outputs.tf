# SPDX-License-Identifier: Apache-2.0

output "participants" {
  description = "DID and protocol address of each participant."
  value = {
    for name, p in { oem = module.oem, supplier = module.supplier } : name => {
      did          = p.did
      protocol_url = p.protocol_url
    }
  }
}
