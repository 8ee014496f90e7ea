// SPDX-License-Identifier: FSL-1.1-ALv2

package api

import (
	ctrl "sigs.k8s.io/controller-runtime/pkg/client"

	cloudv1 "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
)

//revive:disable:exported // the kinds are described where they are defined
type (
	Platform         = Object[cloudv1.PlatformSpec, cloudv1.PlatformStatus]
	Cell             = Object[cloudv1.CellSpec, cloudv1.CellStatus]
	DataspaceProfile = Object[cloudv1.DataspaceProfileSpec, cloudv1.DataspaceProfileStatus]
	UseCase          = Object[cloudv1.UseCaseSpec, cloudv1.UseCaseStatus]
	Organization     = Object[cloudv1.OrganizationSpec, cloudv1.OrganizationStatus]
	Participant      = Object[cloudv1.ParticipantSpec, cloudv1.ParticipantStatus]
	ApprovalKey      = Object[cloudv1.ApprovalKeySpec, cloudv1.ApprovalKeyStatus]
)

var platforms = kind[cloudv1.PlatformSpec, cloudv1.PlatformStatus]{
	noun: "platform", path: "platforms",
	object: func() ctrl.Object { return &cloudv1.Platform{} },
	list:   func() ctrl.ObjectList { return &cloudv1.PlatformList{} },
	parts: func(o ctrl.Object) (*cloudv1.PlatformSpec, *cloudv1.PlatformStatus) {
		p := o.(*cloudv1.Platform) //nolint:forcetypeassert // as object and list make them
		return &p.Spec, &p.Status
	},
}

var cells = kind[cloudv1.CellSpec, cloudv1.CellStatus]{
	noun: "cell", path: "cells",
	object: func() ctrl.Object { return &cloudv1.Cell{} },
	list:   func() ctrl.ObjectList { return &cloudv1.CellList{} },
	parts: func(o ctrl.Object) (*cloudv1.CellSpec, *cloudv1.CellStatus) {
		c := o.(*cloudv1.Cell) //nolint:forcetypeassert // as object and list make them
		return &c.Spec, &c.Status
	},
	organization: func(_ string, spec *cloudv1.CellSpec) string { return spec.Organization },
	open:         true,
	check:        checkCell,
}

var dataspaceProfiles = kind[cloudv1.DataspaceProfileSpec, cloudv1.DataspaceProfileStatus]{
	noun: "dataspace profile", path: "dataspace-profiles",
	object: func() ctrl.Object { return &cloudv1.DataspaceProfile{} },
	list:   func() ctrl.ObjectList { return &cloudv1.DataspaceProfileList{} },
	parts: func(o ctrl.Object) (*cloudv1.DataspaceProfileSpec, *cloudv1.DataspaceProfileStatus) {
		p := o.(*cloudv1.DataspaceProfile) //nolint:forcetypeassert // as object and list make them
		return &p.Spec, &p.Status
	},
	check: checkProfile,
}

var useCases = kind[cloudv1.UseCaseSpec, cloudv1.UseCaseStatus]{
	noun: "use case", path: "use-cases",
	object: func() ctrl.Object { return &cloudv1.UseCase{} },
	list:   func() ctrl.ObjectList { return &cloudv1.UseCaseList{} },
	parts: func(o ctrl.Object) (*cloudv1.UseCaseSpec, *cloudv1.UseCaseStatus) {
		u := o.(*cloudv1.UseCase) //nolint:forcetypeassert // as object and list make them
		return &u.Spec, &u.Status
	},
	check: checkUseCase,
}

var organizations = kind[cloudv1.OrganizationSpec, cloudv1.OrganizationStatus]{
	noun: "organization", path: "organizations",
	object: func() ctrl.Object { return &cloudv1.Organization{} },
	list:   func() ctrl.ObjectList { return &cloudv1.OrganizationList{} },
	parts: func(o ctrl.Object) (*cloudv1.OrganizationSpec, *cloudv1.OrganizationStatus) {
		org := o.(*cloudv1.Organization) //nolint:forcetypeassert // as object and list make them
		return &org.Spec, &org.Status
	},
	organization: func(name string, _ *cloudv1.OrganizationSpec) string { return name },
}

var participants = kind[cloudv1.ParticipantSpec, cloudv1.ParticipantStatus]{
	noun: "participant", path: "participants",
	object: func() ctrl.Object { return &cloudv1.Participant{} },
	list:   func() ctrl.ObjectList { return &cloudv1.ParticipantList{} },
	parts: func(o ctrl.Object) (*cloudv1.ParticipantSpec, *cloudv1.ParticipantStatus) {
		p := o.(*cloudv1.Participant) //nolint:forcetypeassert // as object and list make them
		return &p.Spec, &p.Status
	},
	organization: func(_ string, spec *cloudv1.ParticipantSpec) string { return spec.Organization },
	check:        checkParticipant,
}

var approvalKeys = kind[cloudv1.ApprovalKeySpec, cloudv1.ApprovalKeyStatus]{
	noun: "approval key", path: "approval-keys",
	object: func() ctrl.Object { return &cloudv1.ApprovalKey{} },
	list:   func() ctrl.ObjectList { return &cloudv1.ApprovalKeyList{} },
	parts: func(o ctrl.Object) (*cloudv1.ApprovalKeySpec, *cloudv1.ApprovalKeyStatus) {
		k := o.(*cloudv1.ApprovalKey) //nolint:forcetypeassert // as object and list make them
		return &k.Spec, &k.Status
	},
	organization: func(_ string, spec *cloudv1.ApprovalKeySpec) string { return spec.Organization },
}
