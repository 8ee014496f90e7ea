# SPDX-License-Identifier: Apache-2.0

variable "domain" {
  description = "Domain of the platform's gateway, for instance demo.kaphera.test."
  type        = string
}

variable "attestation_completed_at" {
  description = "When the third party completed the supplier's data-quality attestation (a date, or a time as in RFC 3339). It must be younger than twelve months for the supplier to offer."
  type        = string

  validation {
    condition     = can(formatdate("YYYY", var.attestation_completed_at)) || can(formatdate("YYYY", "${var.attestation_completed_at}T00:00:00Z"))
    error_message = "attestation_completed_at must be a date like 2026-08-14 or a time like 2026-08-14T09:00:00Z."
  }
}

variable "company_kubeconfig" {
  description = "Kubeconfig of the account kaphera-cell-installer in the OEM's own cluster; empty when the OEM has none, and takes part from the shared cell."
  type        = string
  default     = ""
}

variable "company_domain" {
  description = "Domain of the OEM's own gateway."
  type        = string
  default     = ""
}

variable "company_ca_file" {
  description = "PEM file of the authority that certifies the OEM's PostgreSQL and Vault."
  type        = string
  default     = ""
}
