// SPDX-License-Identifier: FSL-1.1-ALv2

package authz

// Operations of the Cloud API, by their id in the OpenAPI document.
const (
	OpInfo = "get-info" // public: how to log in; the only operation without a token

	OpStatus = "get-status"

	OpListPlatforms = "list-platforms"
	OpGetPlatform   = "get-platform"

	OpListCells  = "list-cells"
	OpGetCell    = "get-cell"
	OpPutCell    = "put-cell"
	OpDeleteCell = "delete-cell"

	OpGetCellInstallation = "get-cell-installation"
	OpInstallCell         = "install-cell"
	OpUninstallCell       = "uninstall-cell"
	OpRotateCredentials   = "rotate-cell-credentials" // #nosec G101 -- a name

	OpListProfiles  = "list-dataspace-profiles"
	OpGetProfile    = "get-dataspace-profile"
	OpPutProfile    = "put-dataspace-profile"
	OpDeleteProfile = "delete-dataspace-profile"

	OpListUseCases  = "list-use-cases"
	OpGetUseCase    = "get-use-case"
	OpPutUseCase    = "put-use-case"
	OpDeleteUseCase = "delete-use-case"

	OpListRevisions = "list-use-case-revisions"
	OpGetRevision   = "get-use-case-revision"
	OpSignOff       = "sign-off-use-case-revision"

	OpListOrganizations  = "list-organizations"
	OpGetOrganization    = "get-organization"
	OpPutOrganization    = "put-organization"
	OpDeleteOrganization = "delete-organization"

	OpListParticipants  = "list-participants"
	OpGetParticipant    = "get-participant"
	OpPutParticipant    = "put-participant"
	OpDeleteParticipant = "delete-participant"

	OpListAssets  = "list-assets"
	OpGetAsset    = "get-asset"
	OpPutAsset    = "put-asset"
	OpDeleteAsset = "delete-asset"
	OpPutSecret   = "put-secret"

	OpListOffers  = "list-offers"
	OpGetOffer    = "get-offer"
	OpCreateOffer = "create-offer"
	OpDeleteOffer = "delete-offer"
	OpSendOffer   = "send-offer"

	OpListCredentials     = "list-credentials"
	OpRevokeCredential    = "revoke-credential"    // #nosec G101 -- a name
	OpSuspendCredential   = "suspend-credential"   // #nosec G101 -- a name
	OpResumeCredential    = "resume-credential"    // #nosec G101 -- a name
	OpRedeliverCredential = "redeliver-credential" // #nosec G101 -- a name

	OpListPartners = "list-partners"
	OpGetCatalog   = "get-catalog"

	OpListNegotiations     = "list-negotiations"
	OpGetNegotiation       = "get-negotiation"
	OpWatchNegotiation     = "watch-negotiation"
	OpStartNegotiation     = "start-negotiation"
	OpCounterNegotiation   = "counter-negotiation"
	OpAcceptNegotiation    = "accept-negotiation"
	OpTerminateNegotiation = "terminate-negotiation"

	OpListApprovalKeys  = "list-approval-keys"
	OpGetApprovalKey    = "get-approval-key"
	OpRegisterKey       = "register-approval-key"
	OpDeleteApprovalKey = "delete-approval-key"
	OpListApprovals     = "list-approvals"
	OpDecide            = "decide"

	OpListAgreements = "list-agreements"
	OpGetAgreement   = "get-agreement"
	OpGetDocument    = "get-agreement-document"

	OpListTransfers     = "list-transfers"
	OpGetTransfer       = "get-transfer"
	OpStartTransfer     = "start-transfer"
	OpTerminateTransfer = "terminate-transfer"
	OpSuspendTransfer   = "suspend-transfer"
	OpResumeTransfer    = "resume-transfer"
	OpGetTransferData   = "get-transfer-data"

	OpGetAudit      = "get-audit"
	OpGetAuditHeads = "get-audit-heads"
)

type row map[Role]Scope

// Rows that recur.
var (
	everybodyReads = row{PlatformOperator: All, GovernanceAuthority: All, OrganizationAdmin: All, Viewer: All}
	concerned      = row{PlatformOperator: All, GovernanceAuthority: All, OrganizationAdmin: Own, Viewer: Own}
	operated       = row{PlatformOperator: All, OrganizationAdmin: Own}
	operatedReads  = row{PlatformOperator: All, OrganizationAdmin: Own, Viewer: Own}
	operatorOnly   = row{PlatformOperator: All}
	authorityOnly  = row{GovernanceAuthority: All}
)

// table is the whole of what is allowed.
var table = map[string]row{
	OpStatus: concerned,

	OpListPlatforms: {PlatformOperator: All, GovernanceAuthority: All},
	OpGetPlatform:   {PlatformOperator: All, GovernanceAuthority: All},

	OpListCells:  concerned, // and shared cells are everybody's
	OpGetCell:    concerned,
	OpPutCell:    operatorOnly,
	OpDeleteCell: operatorOnly,

	OpRotateCredentials: operatorOnly, // who runs PostgreSQL and the message server

	// An on-premise cell is described by the operating party and installed by its organization, whose cluster it is.
	OpGetCellInstallation: operatedReads,
	OpInstallCell:         operated,
	OpUninstallCell:       operated,

	OpListProfiles:  everybodyReads,
	OpGetProfile:    everybodyReads,
	OpPutProfile:    authorityOnly,
	OpDeleteProfile: authorityOnly,

	OpListUseCases:  everybodyReads,
	OpGetUseCase:    everybodyReads,
	OpPutUseCase:    authorityOnly,
	OpDeleteUseCase: authorityOnly,

	OpListRevisions: everybodyReads,
	OpGetRevision:   everybodyReads,
	OpSignOff:       authorityOnly, // and only whom the revision in force names, with a key of their own

	OpListOrganizations:  concerned,
	OpGetOrganization:    concerned,
	OpPutOrganization:    {PlatformOperator: All, GovernanceAuthority: All, OrganizationAdmin: Own},
	OpDeleteOrganization: {PlatformOperator: All, GovernanceAuthority: All},

	OpListParticipants:  concerned,
	OpGetParticipant:    concerned,
	OpPutParticipant:    {PlatformOperator: All, GovernanceAuthority: All, OrganizationAdmin: Own},
	OpDeleteParticipant: operated,

	// What was vouched for is for who vouched for it to take back.
	OpListCredentials:     concerned,
	OpRevokeCredential:    authorityOnly,
	OpSuspendCredential:   authorityOnly,
	OpResumeCredential:    authorityOnly,
	OpRedeliverCredential: authorityOnly,

	// A connector's own data: its organization, and the operating party on its behalf. The authority sees what was offered, agreed and
	// refused, never where data lies nor the data.
	OpListAssets:  operatedReads,
	OpGetAsset:    operatedReads,
	OpPutAsset:    operated,
	OpDeleteAsset: operated,
	OpPutSecret:   operated,

	OpListOffers:  concerned,
	OpGetOffer:    concerned,
	OpCreateOffer: operated,
	OpDeleteOffer: operated,
	OpSendOffer:   operated,

	OpListPartners: concerned,
	OpGetCatalog:   operatedReads,

	OpListNegotiations:     concerned,
	OpGetNegotiation:       concerned,
	OpWatchNegotiation:     concerned,
	OpStartNegotiation:     operated,
	OpCounterNegotiation:   operated,
	OpAcceptNegotiation:    operated,
	OpTerminateNegotiation: operated,

	// Who may decide is in the gate, which the provider's connector holds: these reach only what waits for the caller, and the caller's own keys.
	OpRegisterKey:   everybodyReads,
	OpListApprovals: everybodyReads,
	OpDecide:        everybodyReads,

	OpListApprovalKeys:  concerned,
	OpGetApprovalKey:    concerned,
	OpDeleteApprovalKey: {PlatformOperator: All, GovernanceAuthority: All, OrganizationAdmin: Own},

	OpListAgreements: concerned,
	OpGetAgreement:   concerned,
	OpGetDocument:    concerned,

	OpListTransfers:     concerned,
	OpGetTransfer:       concerned,
	OpStartTransfer:     operated,
	OpTerminateTransfer: operated,
	OpSuspendTransfer:   operated,
	OpResumeTransfer:    operated,
	OpGetTransferData:   operated,

	OpGetAudit:      concerned,
	OpGetAuditHeads: concerned,
}

// Known says whether the operation has a row.
func Known(operation string) bool { return operation == OpInfo || len(table[operation]) > 0 }
