// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the custom resources of the EDC operator: Connector, CredentialIssuer and ParticipantContext.
//
// +kubebuilder:object:generate=true
// +groupName=edc.kaphera.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is edc.kaphera.io/v1alpha1.
var GroupVersion = schema.GroupVersion{Group: "edc.kaphera.io", Version: "v1alpha1"}

// AddToScheme registers the kinds of this group.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&Connector{}, &ConnectorList{},
		&CredentialIssuer{}, &CredentialIssuerList{},
		&ParticipantContext{}, &ParticipantContextList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
