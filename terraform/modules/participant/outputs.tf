# SPDX-License-Identifier: Apache-2.0

output "name" {
  description = "Name of the participant."
  value       = kaphera_participant.this.name
}

output "did" {
  description = "Decentralised identifier."
  value       = kaphera_participant.this.did
}

output "protocol_url" {
  description = "Base of the Dataspace Protocol."
  value       = kaphera_participant.this.protocol_url
}

output "organization" {
  description = "Name of the company; known before the participant is there."
  value       = kaphera_organization.this.name
}
