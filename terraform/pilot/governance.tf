# SPDX-License-Identifier: Apache-2.0

# What the governance authority sets: the profile and the use cases. Written once; every participant below refers to it.

locals {
  membership  = "https://w3id.org/catenax/2025/9/policy/Membership"
  attestation = "https://w3id.org/kaphera/policy/DataQualityAttestationAge"
}

resource "kaphera_dataspace_profile" "automotive" {
  name = "automotive"

  issuers = [
    {
      name     = "membership"
      cell     = kaphera_cell.shared.name
      hostname = "authority.${var.domain}"
      credential_types = [
        { type = "MembershipCredential", validity = "P365D", required_claims = ["holderIdentifier", "memberOf"] },
      ]
    },
    {
      name     = "attestation"
      cell     = kaphera_cell.shared.name
      hostname = "auditor.${var.domain}"
      credential_types = [
        { type = "DataQualityAttestationCredential", validity = "P730D", required_claims = ["attestationId", "providerName"] },
      ]
    },
  ]

  required_credentials = ["MembershipCredential"]

  operands = [
    {
      name       = local.membership
      aliases    = ["Membership", "https://w3id.org/catenax/policy/Membership"]
      subject    = "consumer"
      credential = "MembershipCredential"
      expression = "credential.subject.memberOf == 'Automotive pilot' ? 'active' : 'other'"
      value_type = "string"
      operators  = ["eq"]
      phases     = ["catalog", "negotiation", "transfer"]
      sentence = {
        en = "The consumer is an {right} member of the dataspace."
        de = "Der Datenempfänger ist aktives Mitglied des Datenraums."
      }
      remedy = {
        en = "Ask the governance authority for a membership credential."
        de = "Bei der Governance-Stelle einen Mitgliedsnachweis beantragen."
      }
    },
    {
      name       = local.attestation
      aliases    = ["DataQualityAttestationAge"]
      subject    = "provider"
      credential = "DataQualityAttestationCredential"
      expression = "credential.subject.completedAt" # a date or a time (ISO 8601); anything else is denied, and said with the value
      value_type = "age"
      operators  = ["lt", "lteq"]
      phases     = ["catalog", "negotiation", "transfer"]
      sentence = {
        en = "The provider's data-quality attestation by a third party is younger than {right}."
        de = "Die Datenqualitäts-Bescheinigung des Anbieters durch einen Dritten ist jünger als {right}."
      }
      remedy = {
        en = "Have the data quality attested again and the new attestation issued to the provider."
        de = "Die Datenqualität neu bescheinigen und den neuen Nachweis ausstellen lassen."
      }
    },
  ]

  onboarding_checks = ["DIDReachable", "CredentialsHeld", "ContactNamed"]
}

resource "kaphera_use_case" "carbon_footprint" {
  name        = "carbon-footprint"
  profile     = kaphera_dataspace_profile.automotive.name
  title       = "Product carbon footprint exchange"
  description = "A supplier's footprint of a delivered part, offered only with a third-party data-quality attestation younger than twelve months."
  asset_type  = "https://w3id.org/catenax/taxonomy#PcfExchange"

  access_policy = jsonencode({
    "@type" = "Set"
    permission = [{
      action     = "use"
      constraint = [{ leftOperand = local.membership, operator = "eq", rightOperand = "active" }]
    }]
  })

  contract_policy = jsonencode({
    "@type" = "Set"
    permission = [{
      action = "use"
      constraint = [{
        and = [
          { leftOperand = local.membership, operator = "eq", rightOperand = "active" },
          { leftOperand = local.attestation, operator = "lt", rightOperand = "P12M" },
        ]
      }]
    }]
  })
}
