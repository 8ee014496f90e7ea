# SPDX-License-Identifier: Apache-2.0

# What the governance authority sets: the profile and the use cases. Written once; every participant below refers to it.

locals {
  membership  = "https://w3id.org/catenax/2025/9/policy/Membership"
  attestation = "https://w3id.org/kaphera/policy/DataQualityAttestationAge"
  purpose     = "https://w3id.org/catenax/2025/9/policy/UsagePurpose"
  custody     = "https://w3id.org/kaphera/policy/recordAccess"

  # Organizations whose people decide at gates.
  oem      = "rheintal-motoren"
  supplier = "brandt-guss"

  # One of these signs each change of a use case off before it takes effect (kaphera usecase sign-off).
  signers = jsonencode([{ role = "governance-authority" }])

  # Who sees the offers.
  members = jsonencode({
    "@type" = "Set"
    permission = [{
      action     = "use"
      constraint = [{ leftOperand = local.membership, operator = "eq", rightOperand = "active" }]
    }]
  })
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
    {
      # The consumer states it by the offer that it asks for; the agreement and every token under it are for that purpose.
      name       = local.purpose
      aliases    = ["UsagePurpose", "https://w3id.org/catenax/policy/UsagePurpose"]
      subject    = "consumer"
      expression = "request.purpose"
      value_type = "string"
      operators  = ["eq", "isAnyOf"]
      phases     = ["negotiation", "transfer", "access"]
      purpose    = true
      sentence = {
        en = "The data is used for {right} only."
        de = "Die Daten werden nur für {right} genutzt."
      }
      remedy = {
        en = "Ask for an offer that is made for the purpose you have."
        de = "Ein Angebot anfragen, das für den eigenen Zweck gemacht ist."
      }
    },
  ]

  duties = [
    {
      name       = local.custody
      aliases    = ["recordAccess"]
      fulfilment = "record-access"
      sentence = {
        en = "Every access to the data is recorded by the provider, or refused."
        de = "Jeder Zugriff auf die Daten wird beim Anbieter aufgezeichnet oder verweigert."
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

  signers       = local.signers
  access_policy = local.members

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

  # The agreement takes effect only when the authority lets it, by hand, and the attestation is still young enough then.
  gates = jsonencode([{
    name     = "release"
    type     = "Attestation"
    before   = "FINALIZED"
    deadline = "P7D"
    policy = {
      "@type" = "Set"
      permission = [{
        action     = "use"
        constraint = [{ leftOperand = local.attestation, operator = "lt", rightOperand = "P12M" }]
      }]
    }
    triggeredBy = [{ role = "governance-authority" }]
  }])
}

resource "kaphera_use_case" "quality_recall" {
  name        = "quality-recall"
  profile     = kaphera_dataspace_profile.automotive.name
  title       = "Quality data for a recall"
  description = "Quality data of delivered parts, for the investigation of a recall and nothing else."
  asset_type  = "https://w3id.org/catenax/taxonomy#QualityInvestigationNotification"

  signers       = local.signers
  access_policy = local.members

  contract_policy = jsonencode({
    "@type" = "Set"
    permission = [{
      action = "use"
      constraint = [{
        and = [
          { leftOperand = local.membership, operator = "eq", rightOperand = "active" },
          { leftOperand = local.purpose, operator = "isAnyOf", rightOperand = ["cx.core.qualityNotifications:1"] },
        ]
      }]
    }]
  })

  # Both companies agree to a recall: one of each must approve.
  gates = jsonencode([{
    name          = "both-companies"
    type          = "Approval"
    before        = "FINALIZED"
    deadline      = "P3D"
    required      = 2
    organizations = 2
    approvers = [
      { role = "organization-admin", organization = local.oem },
      { role = "organization-admin", organization = local.supplier },
    ]
  }])
}

resource "kaphera_use_case" "digital_product_passport" {
  name        = "digital-product-passport"
  profile     = kaphera_dataspace_profile.automotive.name
  title       = "Digital product passport"
  description = "A part's passport with its chain of custody: every access is recorded, or refused."
  asset_type  = "https://w3id.org/catenax/taxonomy#DigitalProductPassport"

  signers       = local.signers
  access_policy = local.members

  contract_policy = jsonencode({
    "@type" = "Set"
    permission = [{
      action = "use"
      constraint = [{
        and = [
          { leftOperand = local.membership, operator = "eq", rightOperand = "active" },
          { leftOperand = local.purpose, operator = "isAnyOf", rightOperand = ["cx.circular.dpp:1"] },
        ]
      }]
    }]
    obligation = [{ action = local.custody }]
  })
}
