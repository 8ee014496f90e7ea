// SPDX-License-Identifier: FSL-1.1-ALv2

// Package snapshot computes what a cell must run from the cloud's custom resources: one Connector, the CredentialIssuers of the
// profiles whose issuers live in the cell, and a ParticipantContext for each participant. Pure functions, no I/O: the same input gives the
// same objects in the same order. Publishing is celllink's.
package snapshot

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kaphera/kaphera/connector/odrl"
	"github.com/kaphera/kaphera/connector/profile"

	cloud "github.com/kaphera/kaphera/cloudoperator/api/v1alpha1"
	edc "github.com/kaphera/kaphera/edcoperator/api/v1alpha1"
)

// Names in a cell.
const (
	ConnectorName = "connector"
	// IssuerContext is the path segment of every issuer.
	IssuerContext = "issuer"
)

// Labels of what the agent applies.
const (
	// ManagedLabel marks objects of the snapshot; the agent prunes by it.
	ManagedLabel = "cloud.kaphera.io/snapshot"
	// ParticipantLabel names the Participant of a ParticipantContext.
	ParticipantLabel = "cloud.kaphera.io/participant"
)

// Namespace of a cell.
func Namespace(cell string) string { return "cell-" + cell }

// DID of a context at a host.
func DID(hostname, context string) string { return "did:web:" + hostname + ":" + context }

// Hostname in a participant's DID; cell is that in which it runs.
func Hostname(p *cloud.Participant, cell *cloud.CellSpec) string {
	return cmp.Or(p.Status.Hostname, p.Spec.Identity.Hostname, cell.Hostname)
}

// IssuerDID is an issuer's.
func IssuerDID(i cloud.Issuer) string { return DID(i.Hostname, IssuerContext) }

// Facts are what the platform's parts look like from the cell.
type Facts struct {
	DatabaseHost string
	DatabasePort int32
	DatabaseCA   string
	VaultAddress string
	// VaultNamespace may be empty.
	VaultNamespace string
	VaultCA        string
	VaultMount     string
	// VaultMethod by which roles log in, edc.VaultMethodKubernetes or edc.VaultMethodJWT, and the mount path of it.
	VaultMethod, VaultAuth string
	// VaultAudience is that of the tokens with which roles log in.
	VaultAudience string
	Image         string                        // of the connector
	PullSecrets   []corev1.LocalObjectReference // in the cell's namespace
	Trust         edc.Trust
	Ingress       cloud.PlatformIngress
}

// Input is everything that a snapshot depends on. Lists hold the objects of the whole platform; those being deleted are left out by Compile
// where their deletion means it.
type Input struct {
	Cell         cloud.Cell
	Cells        []cloud.Cell
	Profiles     []cloud.DataspaceProfile
	Participants []cloud.Participant
	Facts        Facts
}

// Resources names what the cell controller makes for a runtime in the cell: database, its Secrets, Vault prefix and roles.
type Resources struct {
	Database string
	Owner    string // database role, and with dashes the Secret
	Roles    map[string]string
	Prefix   string
	Grants   map[string]string
}

// Runtime roles, as keys of Resources.
const (
	ControlPlane = "control-plane"
	Wallet       = "wallet"
	DataPlane    = "data-plane"
	IssuerRole   = "issuer"
	// Backup and Restore have no account in the database: they use the owner's.
	Backup  = "backup"
	Restore = "restore"
)

// ConnectorResources are those of the cell's connector.
func ConnectorResources(cell string) Resources {
	return resources("cell_"+underscore(cell), "cells/"+cell+"/connector", "cell-"+cell+"-connector", ControlPlane, Wallet, DataPlane)
}

// IssuerResources are those of an issuer in the cell.
func IssuerResources(cell, issuer string) Resources {
	return resources("cell_"+underscore(cell)+"_i_"+underscore(issuer), "cells/"+cell+"/issuers/"+issuer, "cell-"+cell+"-issuer-"+issuer, IssuerRole)
}

func resources(database, prefix, grant string, roles ...string) Resources {
	if len(database) > maxDatabase {
		sum := sha256.Sum256([]byte(database))
		database = database[:maxDatabase-9] + "_" + hex.EncodeToString(sum[:4])
	}
	r := Resources{Database: database, Owner: database + "_owner", Roles: map[string]string{}, Prefix: prefix, Grants: map[string]string{}}
	for _, role := range roles {
		r.Roles[role] = database + "_" + shortRole[role]
	}
	for _, role := range append(roles, Backup, Restore) {
		r.Grants[role] = grant + "-" + role
	}
	return r
}

// maxDatabase leaves room for "_owner" within PostgreSQL's 63 bytes.
const maxDatabase = 57

var shortRole = map[string]string{ControlPlane: "cp", Wallet: "w", DataPlane: "dp", IssuerRole: "is"}

func underscore(s string) string { return strings.ReplaceAll(s, "-", "_") }

// DatabaseSecret is the name of the Secret in the cell's namespace of a database role of a runtime; role "" is the owner.
func DatabaseSecret(runtimeName, role string) string {
	if role == "" {
		role = "owner"
	}
	return runtimeName + "-database-" + role
}

// Resolve turns a profile into what a connector needs.
func Resolve(p cloud.DataspaceProfile) profile.Profile {
	out := profile.Profile{Name: p.Name, Protocol: p.Spec.Protocol, RequiredCredentials: p.Spec.RequiredCredentials, Operands: p.Spec.Operands, Duties: p.Spec.Duties}
	for _, i := range p.Spec.Issuers {
		t := profile.TrustedIssuer{DID: IssuerDID(i)}
		for _, c := range i.CredentialTypes {
			t.Types = append(t.Types, c.Type)
		}
		out.TrustedIssuers = append(out.TrustedIssuers, t)
	}
	return out
}

// Compile computes the objects of a cell. An error names the object that makes it impossible; the snapshot before stays in force.
func Compile(in Input) ([]*unstructured.Unstructured, error) {
	c := compiler{Input: in, cells: map[string]*cloud.CellSpec{}, profiles: map[string]cloud.DataspaceProfile{}, sameContext: map[string][]cloud.Participant{}}
	sort.Slice(c.Participants, func(i, j int) bool { return First(&c.Participants[i].ObjectMeta, &c.Participants[j].ObjectMeta) })
	sort.Slice(c.Profiles, func(i, j int) bool { return First(&c.Profiles[i].ObjectMeta, &c.Profiles[j].ObjectMeta) })
	for i := range in.Cells {
		c.cells[in.Cells[i].Name] = &in.Cells[i].Spec
	}
	for _, p := range in.Profiles {
		c.profiles[p.Name] = p
	}
	for _, p := range c.Participants {
		c.sameContext[p.Spec.Identity.Context] = append(c.sameContext[p.Spec.Identity.Context], p)
	}
	participants := c.contexts()
	connector, err := c.connector(participants)
	if err != nil {
		return nil, err
	}
	issuers, err := c.issuers()
	if err != nil {
		return nil, err
	}
	objects := []runtime.Object{connector}
	for _, i := range issuers {
		objects = append(objects, i)
	}
	for _, p := range participants {
		objects = append(objects, p)
	}
	return encode(objects)
}

// First tells whether a comes before b where both want what only one can have, such as a context in a cell.
func First(a, b metav1.Object) bool {
	at, bt := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	if !at.Equal(&bt) {
		return at.Before(&bt)
	}
	return a.GetName() < b.GetName()
}

// Taken finds who of others keeps p from having its context in its cell: whose context is there, or is on its way there, or whose DID p's would be,
// since it was made there and has moved away. Nobody takes from a participant what it has, as status.cell and status.hostname say; of several that have it,
// and of those that have not, it is the first's.
func Taken(p *cloud.Participant, others []cloud.Participant, cell *cloud.CellSpec) *cloud.Participant {
	if cell == nil {
		return nil
	}
	for i := range others {
		o := &others[i]
		m := cmp.Or(o.Status.Move, &cloud.ParticipantMove{})
		switch {
		case o.Name == p.Name || o.Spec.Identity.Context != p.Spec.Identity.Context:
		case p.Status.Cell != "": // each has seen the other too late
			if o.Status.Cell != "" && (o.Status.Cell == p.Status.Cell || o.Status.Hostname == p.Status.Hostname) && First(o, p) {
				return o
			}
		case o.Status.Cell == "":
			if o.Spec.Cell == p.Spec.Cell && cell.Hosts(o.Spec.Organization) && First(o, p) {
				return o
			}
		case slices.Contains([]string{o.Status.Cell, m.From, m.To}, p.Spec.Cell), o.Status.Hostname == Hostname(p, cell):
			return o
		}
	}
	return nil
}

type compiler struct {
	Input
	cells       map[string]*cloud.CellSpec
	profiles    map[string]cloud.DataspaceProfile
	sameContext map[string][]cloud.Participant // by context
}

// runs says whether the cell in which p runs, or is to run, has it.
func (c *compiler) runs(p *cloud.Participant) bool {
	cell := c.cells[p.RunsIn()]
	return cell != nil && cell.Hosts(p.Spec.Organization) && Taken(p, c.sameContext[p.Spec.Identity.Context], cell) == nil
}

// hostname is that of p's DID; p runs.
func (c *compiler) hostname(p *cloud.Participant) string { return Hostname(p, c.cells[p.RunsIn()]) }

func (c *compiler) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: Namespace(c.Cell.Name), Labels: map[string]string{ManagedLabel: c.Cell.Name}}
}

func (c *compiler) exposure(hostname string) edc.Exposure {
	if own := c.Cell.Spec; own.Type == cloud.OnPremise {
		i := cmp.Or(own.Ingress, &cloud.CellIngress{})
		return edc.Exposure{Hostname: hostname, IngressClassName: i.ClassName, Annotations: i.Annotations, TLSSecretName: i.TLSSecretName}
	}
	i := c.Facts.Ingress
	return edc.Exposure{Hostname: hostname, IngressClassName: i.ClassName, Annotations: i.Annotations, TLSSecretName: i.TLSSecretName}
}

func (c *compiler) database(r Resources, runtimeName string) edc.Database {
	d := edc.Database{
		Host: c.Facts.DatabaseHost, Port: c.Facts.DatabasePort, Name: r.Database, SSLMode: "verify-full", CABundle: c.Facts.DatabaseCA,
		OwnerSecret: corev1.LocalObjectReference{Name: DatabaseSecret(runtimeName, "")},
	}
	for role := range r.Roles {
		secret := DatabaseSecret(runtimeName, role)
		switch role {
		case ControlPlane:
			d.RoleSecrets.ControlPlane = secret
		case Wallet:
			d.RoleSecrets.Wallet = secret
		case DataPlane:
			d.RoleSecrets.DataPlane = secret
		case IssuerRole:
			d.RoleSecrets.Issuer = secret
		}
	}
	return d
}

func (c *compiler) vault(r Resources) edc.Vault {
	return edc.Vault{
		Address: c.Facts.VaultAddress, Namespace: c.Facts.VaultNamespace, Mount: c.Facts.VaultMount, Prefix: r.Prefix, CABundle: c.Facts.VaultCA,
		Auth: edc.VaultAuth{Method: c.Facts.VaultMethod, MountPath: c.Facts.VaultAuth, Audience: c.Facts.VaultAudience, Roles: edc.VaultRoles{
			ControlPlane: r.Grants[ControlPlane], Wallet: r.Grants[Wallet], DataPlane: r.Grants[DataPlane], Issuer: r.Grants[IssuerRole],
			Backup: r.Grants[Backup], Restore: r.Grants[Restore],
		}},
	}
}

func (c *compiler) connector(participants []*edc.ParticipantContext) (*edc.Connector, error) {
	r := ConnectorResources(c.Cell.Name)
	out := &edc.Connector{
		TypeMeta: metav1.TypeMeta{APIVersion: edc.GroupVersion.String(), Kind: "Connector"}, ObjectMeta: c.meta(ConnectorName),
		Spec: edc.ConnectorSpec{
			Image: c.Facts.Image, ImagePullSecrets: c.Facts.PullSecrets, Exposure: c.exposure(c.Cell.Spec.Hostname), Trust: c.Facts.Trust, DataPlane: c.Cell.Spec.DataPlane,
			Database: c.database(r, ConnectorName), Vault: c.vault(r), Replicas: c.Cell.Spec.Replicas, Audit: c.Cell.Spec.Audit, PerParticipant: c.Cell.Spec.PerParticipant,
		},
	}
	if own := c.Cell.Spec; own.Type == cloud.OnPremise {
		if own.Database == nil || own.Vault == nil {
			return nil, errors.New("the cell is on-premise and has no database or vault in its spec")
		}
		out.Spec.Database, out.Spec.Vault, out.Spec.ImagePullSecrets = *own.Database, *own.Vault, own.ImagePullSecrets
		out.Spec.Image = cmp.Or(own.Images.Connector, out.Spec.Image)
		if own.Trust != nil {
			out.Spec.Trust = *own.Trust
		}
	}
	used, hosts := map[string]bool{}, map[string]bool{}
	for _, p := range participants {
		if p.Spec.Hostname != "" {
			hosts[p.Spec.Hostname] = true
		}
		for _, name := range append([]string{p.Spec.Profile}, p.Spec.FurtherProfiles...) {
			used[name] = true
		}
	}
	for _, host := range sortedKeys(hosts) {
		out.Spec.FurtherHosts = append(out.Spec.FurtherHosts, edc.FurtherHost{Hostname: host})
	}
	for _, name := range sortedKeys(used) {
		resolved := Resolve(c.profiles[name])
		if _, err := odrl.NewEvaluator(resolved); err != nil {
			return nil, fmt.Errorf("dataspace profile %s is not valid: %w", name, err)
		}
		out.Spec.Profiles = append(out.Spec.Profiles, resolved)
	}
	return out, nil
}

// Issuers returns the issuers that run in a cell, each from the oldest profile that names it; none in a cell of one organization, which is for its
// organization's participants alone. Profiles are sorted by age.
func Issuers(cell *cloud.Cell, profiles []cloud.DataspaceProfile) []PlacedIssuer {
	if cell.Spec.Organization != "" {
		return nil
	}
	sorted := append([]cloud.DataspaceProfile(nil), profiles...)
	sort.Slice(sorted, func(i, j int) bool { return First(&sorted[i].ObjectMeta, &sorted[j].ObjectMeta) })
	seen := map[string]bool{}
	var out []PlacedIssuer
	for _, p := range sorted {
		for _, i := range p.Spec.Issuers {
			if i.Cell == cell.Name && !seen[i.Name] {
				seen[i.Name] = true
				out = append(out, PlacedIssuer{Issuer: i, Profile: p.Name})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Issuer.Name < out[j].Issuer.Name })
	return out
}

// PlacedIssuer is an issuer with the profile that it belongs to.
type PlacedIssuer struct {
	Issuer  cloud.Issuer
	Profile string
}

func (c *compiler) issuers() ([]*edc.CredentialIssuer, error) {
	var out []*edc.CredentialIssuer
	hosts := map[string]string{c.Cell.Spec.Hostname: "the cell's connector"}
	for _, placed := range Issuers(&c.Cell, c.Profiles) {
		i := placed.Issuer
		if other := hosts[i.Hostname]; other != "" {
			return nil, fmt.Errorf("issuer %s of dataspace profile %s has the host name %s, which is that of %s", i.Name, placed.Profile, i.Hostname, other)
		}
		hosts[i.Hostname] = "issuer " + i.Name
		r := IssuerResources(c.Cell.Name, i.Name)
		out = append(out, &edc.CredentialIssuer{
			TypeMeta: metav1.TypeMeta{APIVersion: edc.GroupVersion.String(), Kind: "CredentialIssuer"}, ObjectMeta: c.meta(i.Name),
			Spec: edc.CredentialIssuerSpec{
				Image: c.Facts.Image, ImagePullSecrets: c.Facts.PullSecrets, Exposure: c.exposure(i.Hostname), Context: IssuerContext, Trust: c.Facts.Trust,
				Database: c.database(r, i.Name), Vault: c.vault(r), CredentialTypes: i.CredentialTypes, Holders: c.holders(placed), Replicas: c.Cell.Spec.Replicas,
			},
		})
	}
	return out, nil
}

// holders are the participants of the profile, in whatever cell, with the credentials that this issuer may issue.
func (c *compiler) holders(placed PlacedIssuer) []edc.Holder {
	types := map[string]bool{}
	for _, t := range placed.Issuer.CredentialTypes {
		types[t.Type] = true
	}
	byDID := map[string]edc.Holder{}
	for i := range c.Participants {
		p := &c.Participants[i]
		if !slices.Contains(p.Spec.Profiles(), placed.Profile) || !c.runs(p) || !p.DeletionTimestamp.IsZero() {
			continue
		}
		h := edc.Holder{DID: DID(c.hostname(p), p.Spec.Identity.Context)}
		for _, cr := range p.Spec.Credentials {
			if types[cr.Type] {
				h.Credentials = append(h.Credentials, cr)
			}
		}
		if _, taken := byDID[h.DID]; !taken && len(h.Credentials) > 0 {
			sort.Slice(h.Credentials, func(i, j int) bool { return h.Credentials[i].Type < h.Credentials[j].Type })
			byDID[h.DID] = h
		}
	}
	var out []edc.Holder
	for _, did := range sortedKeys(byDID) {
		out = append(out, byDID[did])
	}
	return out
}

// contexts are the participants of this cell that it hosts and whose default profile exists, in those of their profiles that do.
func (c *compiler) contexts() []*edc.ParticipantContext {
	var out []*edc.ParticipantContext
	for i := range c.Participants {
		p := &c.Participants[i]
		prof, ok := c.profiles[p.Spec.Profile]
		context := p.Spec.Identity.Context
		move := cmp.Or(p.Status.Move, &cloud.ParticipantMove{})
		// One that is deleted stays while it is between cells: its connector would delete what is being transferred, or would not know yet what has come.
		if p.RunsIn() != c.Cell.Name || !ok || !p.DeletionTimestamp.IsZero() && !p.Between() || move.Phase == cloud.MoveLeaving || !c.runs(p) {
			continue
		}
		m := c.meta(context)
		m.Labels[ParticipantLabel] = p.Name
		pc := &edc.ParticipantContext{
			TypeMeta: metav1.TypeMeta{APIVersion: edc.GroupVersion.String(), Kind: "ParticipantContext"}, ObjectMeta: m,
			Spec: edc.ParticipantContextSpec{
				ConnectorRef: corev1.LocalObjectReference{Name: ConnectorName}, Context: context, Profile: p.Spec.Profile,
				BusinessPartnerNumber: p.Spec.Identity.BusinessPartnerNumber, SelfCheck: p.Spec.SelfCheck, Key: p.Spec.Key,
				Active: onboarded(p) && (move.Phase == "" || move.Phase == cloud.MoveActivating),
			},
		}
		if move.Phase != "" {
			pc.Spec.Key = move.Key
		}
		if host := c.hostname(p); host != c.Cell.Spec.Hostname {
			pc.Spec.Hostname = host
		}
		profiles := []cloud.DataspaceProfile{prof}
		for _, name := range p.Spec.FurtherProfiles {
			if f, ok := c.profiles[name]; ok {
				pc.Spec.FurtherProfiles, profiles = append(pc.Spec.FurtherProfiles, name), append(profiles, f)
			}
		}
		for _, cr := range p.Spec.Credentials {
			for _, did := range IssuersOf(profiles, cr.Type) {
				pc.Spec.Credentials = append(pc.Spec.Credentials, edc.RequestedCredential{Type: cr.Type, Issuer: did})
			}
		}
		sort.SliceStable(pc.Spec.Credentials, func(i, j int) bool { return pc.Spec.Credentials[i].Type < pc.Spec.Credentials[j].Type })
		out = append(out, pc)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// IssuerOf is the DID of the profile's first issuer of a type; empty when there is none.
func IssuerOf(p cloud.DataspaceProfile, credentialType string) string {
	for _, i := range p.Spec.Issuers {
		for _, t := range i.CredentialTypes {
			if t.Type == credentialType {
				return IssuerDID(i)
			}
		}
	}
	return ""
}

// IssuersOf are the DIDs of each profile's first issuer of a type, without repeats.
func IssuersOf(profiles []cloud.DataspaceProfile, credentialType string) []string {
	var out []string
	for _, p := range profiles {
		if did := IssuerOf(p, credentialType); did != "" && !slices.Contains(out, did) {
			out = append(out, did)
		}
	}
	return out
}

func onboarded(p *cloud.Participant) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == cloud.ConditionOnboarded {
			return c.Status == metav1.ConditionTrue
		}
	}
	return false
}

func encode(objects []runtime.Object) ([]*unstructured.Unstructured, error) {
	out := make([]*unstructured.Unstructured, 0, len(objects))
	for _, o := range objects {
		m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return nil, fmt.Errorf("encode the snapshot: %w", err)
		}
		delete(m, "status")
		unstructured.RemoveNestedField(m, "metadata", "creationTimestamp")
		out = append(out, &unstructured.Unstructured{Object: m})
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
