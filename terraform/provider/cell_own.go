// SPDX-License-Identifier: Apache-2.0

package provider

import (
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// What an on-premise cell names of its company's own: PostgreSQL, Vault and gateway. Secrets are named, never sent.

type databaseModel struct {
	Host        types.String      `tfsdk:"host"`
	Port        types.Int64       `tfsdk:"port"`
	Name        types.String      `tfsdk:"name"`
	SSLMode     types.String      `tfsdk:"ssl_mode"`
	CABundle    types.String      `tfsdk:"ca_bundle"`
	OwnerSecret types.String      `tfsdk:"owner_secret"`
	RoleSecrets *runtimeRoleModel `tfsdk:"role_secrets"`
}

type vaultModel struct {
	Address   types.String   `tfsdk:"address"`
	Namespace types.String   `tfsdk:"namespace"`
	Mount     types.String   `tfsdk:"mount"`
	Prefix    types.String   `tfsdk:"prefix"`
	CABundle  types.String   `tfsdk:"ca_bundle"`
	Auth      vaultAuthModel `tfsdk:"auth"`
}

type vaultAuthModel struct {
	Method         types.String      `tfsdk:"method"`
	MountPath      types.String      `tfsdk:"mount_path"`
	Audience       types.String      `tfsdk:"audience"`
	Roles          *runtimeRoleModel `tfsdk:"roles"`
	TokenSecret    types.String      `tfsdk:"token_secret"`
	AppRoleSecrets *runtimeRoleModel `tfsdk:"app_role_secrets"`
}

// runtimeRoleModel has something for each role of a connector.
type runtimeRoleModel struct {
	ControlPlane types.String `tfsdk:"control_plane"`
	Wallet       types.String `tfsdk:"wallet"`
	DataPlane    types.String `tfsdk:"data_plane"`
}

type ingressModel struct {
	ClassName     types.String      `tfsdk:"class_name"`
	Annotations   map[string]string `tfsdk:"annotations"`
	TLSSecretName types.String      `tfsdk:"tls_secret_name"`
}

type secretRef struct {
	Name string `json:"name"`
}

type databaseSpec struct {
	Host        string       `json:"host"`
	Port        int64        `json:"port,omitempty"`
	Name        string       `json:"name"`
	SSLMode     string       `json:"sslMode,omitempty"`
	CABundle    string       `json:"caBundle,omitempty"`
	OwnerSecret secretRef    `json:"ownerSecret"`
	RoleSecrets *runtimeRole `json:"roleSecrets,omitempty"`
}

type vaultSpec struct {
	Address   string    `json:"address"`
	Namespace string    `json:"namespace,omitempty"`
	Mount     string    `json:"mount,omitempty"`
	Prefix    string    `json:"prefix"`
	CABundle  string    `json:"caBundle,omitempty"`
	Auth      vaultAuth `json:"auth"`
}

type vaultAuth struct {
	Method         string       `json:"method"`
	MountPath      string       `json:"mountPath,omitempty"`
	Audience       string       `json:"audience,omitempty"`
	Roles          *runtimeRole `json:"roles,omitempty"`
	TokenSecret    *secretRef   `json:"tokenSecret,omitempty"`
	AppRoleSecrets *runtimeRole `json:"appRoleSecrets,omitempty"`
}

type runtimeRole struct {
	ControlPlane string `json:"controlPlane,omitempty"`
	Wallet       string `json:"wallet,omitempty"`
	DataPlane    string `json:"dataPlane,omitempty"`
}

type ingressSpec struct {
	ClassName     string            `json:"className,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	TLSSecretName string            `json:"tlsSecretName,omitempty"`
}

// ownAttributes are the attributes of what is the company's own.
func ownAttributes() map[string]schema.Attribute {
	text := func(required bool, description string) schema.StringAttribute {
		return schema.StringAttribute{Required: required, Optional: !required, MarkdownDescription: description}
	}
	withDefault := func(value, description string, oneOf ...string) schema.StringAttribute {
		a := schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString(value), MarkdownDescription: description}
		if len(oneOf) > 0 {
			a.Validators = []validator.String{stringvalidator.OneOf(oneOf...)}
		}
		return a
	}
	roles := func(description, one string) schema.SingleNestedAttribute {
		return schema.SingleNestedAttribute{Optional: true, MarkdownDescription: description, Attributes: map[string]schema.Attribute{
			"control_plane": text(false, one+" of the control plane."), "wallet": text(false, one+" of the wallet."), "data_plane": text(false, one+" of the data plane."),
		}}
	}
	method := text(true, "`Kubernetes`, `JWT`, `Token` or `AppRole`.")
	method.Validators = []validator.String{stringvalidator.OneOf("Kubernetes", "JWT", "Token", "AppRole")}
	return map[string]schema.Attribute{
		"database": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "The company's own PostgreSQL, which an on-premise cell names. Its Secrets are in namespace `cell-<name>` of the company's cluster.",
			Attributes: map[string]schema.Attribute{
				"host": text(true, "Host name."),
				"port": schema.Int64Attribute{Optional: true, Computed: true, Default: int64default.StaticInt64(5432), MarkdownDescription: "Port."},
				"name": text(true, "Name of the database."), "ssl_mode": withDefault("verify-full", "As libpq spells it.", "disable", "require", "verify-ca", "verify-full"),
				"ca_bundle": text(false, "PEM of the server's certificate authority."), "owner_secret": text(true, "Name of the Secret (keys `username`, `password`) of the database's owner."),
				"role_secrets": roles("Names of Secrets of less privileged database roles.", "That"),
			},
		},
		"vault": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "The company's own OpenBao or HashiCorp Vault, which an on-premise cell names.",
			Attributes: map[string]schema.Attribute{
				"address": text(true, "URL."), "namespace": text(false, "Namespace of the Vault."), "mount": withDefault("kv", "Path of the KV version 2 engine, such as `industrial/kv`."),
				"prefix": text(true, "What below the mount is the cell's."), "ca_bundle": text(false, "PEM of its certificate authority."),
				"auth": schema.SingleNestedAttribute{Required: true, MarkdownDescription: "How the connector logs in.", Attributes: map[string]schema.Attribute{
					"method": method, "mount_path": text(false, "Path of the auth method. Default: that of the method."),
					"audience":         withDefault("vault", "Audience of the service account tokens that the methods Kubernetes and JWT present."),
					"roles":            roles("Vault roles of the methods Kubernetes and JWT. Default: named after the service accounts.", "That"),
					"token_secret":     text(false, "Name of the Secret (key `token`) of the method Token."),
					"app_role_secrets": roles("Names of the Secrets (keys `role-id`, `secret-id`) of the method AppRole.", "That"),
				}},
			},
		},
		"ingress": schema.SingleNestedAttribute{
			Optional: true, MarkdownDescription: "How the company's gateway serves `hostname` of an on-premise cell. Absent: as its cluster does by default.",
			Attributes: map[string]schema.Attribute{
				"class_name":      text(false, "Class of the ingress controller."),
				"annotations":     schema.MapAttribute{Optional: true, ElementType: types.StringType, MarkdownDescription: "Annotations of the Ingress."},
				"tls_secret_name": text(false, "Name of the Secret of the certificate, in the cell's namespace."),
			},
		},
	}
}

func (m *databaseModel) spec() *databaseSpec {
	if m == nil {
		return nil
	}
	return &databaseSpec{
		Host: m.Host.ValueString(), Port: m.Port.ValueInt64(), Name: m.Name.ValueString(), SSLMode: m.SSLMode.ValueString(), CABundle: m.CABundle.ValueString(),
		OwnerSecret: secretRef{m.OwnerSecret.ValueString()}, RoleSecrets: m.RoleSecrets.spec(),
	}
}

func (s *databaseSpec) model(was *databaseModel) *databaseModel {
	if s == nil {
		return nil
	}
	m := databaseModel{
		Host: types.StringValue(s.Host), Port: types.Int64Value(s.Port), Name: types.StringValue(s.Name), SSLMode: types.StringValue(s.SSLMode), CABundle: optional(s.CABundle),
		OwnerSecret: types.StringValue(s.OwnerSecret.Name),
	}
	if was == nil {
		was = &databaseModel{}
	}
	m.RoleSecrets = s.RoleSecrets.model(was.RoleSecrets)
	return &m
}

func (m *vaultModel) spec() *vaultSpec {
	if m == nil {
		return nil
	}
	s := vaultSpec{
		Address: m.Address.ValueString(), Namespace: m.Namespace.ValueString(), Mount: m.Mount.ValueString(), Prefix: m.Prefix.ValueString(), CABundle: m.CABundle.ValueString(),
		Auth: vaultAuth{
			Method: m.Auth.Method.ValueString(), MountPath: m.Auth.MountPath.ValueString(), Audience: m.Auth.Audience.ValueString(),
			Roles: m.Auth.Roles.spec(), AppRoleSecrets: m.Auth.AppRoleSecrets.spec(),
		},
	}
	if name := m.Auth.TokenSecret.ValueString(); name != "" {
		s.Auth.TokenSecret = &secretRef{name}
	}
	return &s
}

func (s *vaultSpec) model(was *vaultModel) *vaultModel {
	if s == nil {
		return nil
	}
	m := vaultModel{
		Address: types.StringValue(s.Address), Namespace: optional(s.Namespace), Mount: types.StringValue(s.Mount), Prefix: types.StringValue(s.Prefix), CABundle: optional(s.CABundle),
		Auth: vaultAuthModel{Method: types.StringValue(s.Auth.Method), MountPath: optional(s.Auth.MountPath), Audience: types.StringValue(s.Auth.Audience)},
	}
	if was == nil {
		was = &vaultModel{}
	}
	m.Auth.Roles, m.Auth.AppRoleSecrets = s.Auth.Roles.model(was.Auth.Roles), s.Auth.AppRoleSecrets.model(was.Auth.AppRoleSecrets)
	if s.Auth.TokenSecret != nil {
		m.Auth.TokenSecret = types.StringValue(s.Auth.TokenSecret.Name)
	}
	return &m
}

func (m *runtimeRoleModel) spec() *runtimeRole {
	if m == nil {
		return nil
	}
	return &runtimeRole{m.ControlPlane.ValueString(), m.Wallet.ValueString(), m.DataPlane.ValueString()}
}

// model is nil where nothing is said, unless the configuration says nothing at length.
func (s *runtimeRole) model(was *runtimeRoleModel) *runtimeRoleModel {
	if s == nil || *s == (runtimeRole{}) {
		if was == nil {
			return nil
		}
		s = &runtimeRole{}
	}
	return &runtimeRoleModel{optional(s.ControlPlane), optional(s.Wallet), optional(s.DataPlane)}
}

func (m *ingressModel) spec() *ingressSpec {
	if m == nil {
		return nil
	}
	return &ingressSpec{m.ClassName.ValueString(), m.Annotations, m.TLSSecretName.ValueString()}
}

func (s *ingressSpec) model(was *ingressModel) *ingressModel {
	if s == nil { // the API leaves an empty object out
		if was == nil {
			return nil
		}
		s = &ingressSpec{}
	}
	m := &ingressModel{optional(s.ClassName), s.Annotations, optional(s.TLSSecretName)}
	if len(s.Annotations) == 0 && was != nil && was.Annotations != nil {
		m.Annotations = map[string]string{}
	}
	return m
}
