# SPDX-License-Identifier: Apache-2.0

variable "name" {
  description = "Name of the participant in the platform."
  type        = string
}

variable "organization" {
  description = "The company that owns the participant."
  type = object({
    name          = string
    display_name  = string
    contact_email = optional(string)
  })
}

variable "identity" {
  description = "Identity in the dataspace: the context is the last part of the DID, did:web:<cell's host>:<context>."
  type = object({
    context                 = string
    business_partner_number = string
  })

  validation {
    condition     = can(regex("^BPNL[0-9A-Z]{12}$", var.identity.business_partner_number))
    error_message = "business_partner_number must be BPNL and 12 digits or capital letters, for instance BPNL00000000OEM1."
  }
}

variable "cell" {
  description = "Name of the cell in which the connector runs."
  type        = string
}

variable "profile" {
  description = "Name of the dataspace profile."
  type        = string
}

variable "further_profiles" {
  description = "Names of the dataspace profiles in which it takes part besides."
  type        = set(string)
  default     = null
}

variable "operating_party" {
  description = "Who runs the connector, when it is not the cell's operating party."
  type        = string
  default     = null
}

variable "credentials" {
  description = "Credentials that the profile's issuers grant, by type, with the facts they vouch for."
  type = map(object({
    claims = optional(map(string), {})
  }))
  default = {}
}
