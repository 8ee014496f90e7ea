// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Finalizer of the kinds that need something undone outside the cluster.
const Finalizer = "edc.kaphera.io/operator"

// GetConditions returns the conditions for reading and writing.
func (c *Connector) GetConditions() *[]metav1.Condition { return &c.Status.Conditions }

// SetObservedGeneration records the generation that the status is about.
func (c *Connector) SetObservedGeneration(g int64) { c.Status.ObservedGeneration = g }

// GetConditions returns the conditions for reading and writing.
func (c *CredentialIssuer) GetConditions() *[]metav1.Condition { return &c.Status.Conditions }

// SetObservedGeneration records the generation that the status is about.
func (c *CredentialIssuer) SetObservedGeneration(g int64) { c.Status.ObservedGeneration = g }

// GetConditions returns the conditions for reading and writing.
func (p *ParticipantContext) GetConditions() *[]metav1.Condition { return &p.Status.Conditions }

// SetObservedGeneration records the generation that the status is about.
func (p *ParticipantContext) SetObservedGeneration(g int64) { p.Status.ObservedGeneration = g }
