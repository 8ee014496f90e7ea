// SPDX-License-Identifier: FSL-1.1-ALv2

// Package natsauth makes the keys, JWTs and credentials of a NATS server in operator mode, and pushes accounts to it, so that a new
// account needs no restart. It holds no subject of a cell but in the permissions it grants.
package natsauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Operator is the authority of a server: seeds of the operator and of the system account.
type Operator struct {
	Seed       []byte
	SystemSeed []byte
}

// NewOperator makes new keys.
func NewOperator() (Operator, error) {
	op, err := nkeys.CreateOperator()
	if err != nil {
		return Operator{}, fmt.Errorf("make the operator's key: %w", err)
	}
	sys, err := NewAccountSeed()
	if err != nil {
		return Operator{}, err
	}
	seed, err := op.Seed()
	return Operator{Seed: seed, SystemSeed: sys}, err
}

// NewAccountSeed makes the key of an account.
func NewAccountSeed() ([]byte, error) {
	kp, err := nkeys.CreateAccount()
	if err != nil {
		return nil, fmt.Errorf("make an account's key: %w", err)
	}
	return kp.Seed()
}

// Server is what the server's configuration needs.
type Server struct {
	OperatorJWT   string
	SystemAccount string // public key
	SystemJWT     string
}

// Server derives them. The result is the same for the same keys but for the time of signing.
func (o Operator) Server() (Server, error) {
	kp, pub, err := public(o.Seed)
	if err != nil {
		return Server{}, fmt.Errorf("operator's key: %w", err)
	}
	_, sysPub, err := public(o.SystemSeed)
	if err != nil {
		return Server{}, fmt.Errorf("system account's key: %w", err)
	}
	oc := jwt.NewOperatorClaims(pub)
	oc.Name, oc.SystemAccount = "kaphera", sysPub
	opJWT, err := oc.Encode(kp)
	if err != nil {
		return Server{}, fmt.Errorf("sign the operator: %w", err)
	}
	ac := jwt.NewAccountClaims(sysPub)
	ac.Name = "SYS"
	sysJWT, err := ac.Encode(kp)
	if err != nil {
		return Server{}, fmt.Errorf("sign the system account: %w", err)
	}
	return Server{OperatorJWT: opJWT, SystemAccount: sysPub, SystemJWT: sysJWT}, nil
}

// Of says whether an encoded operator JWT was made with these keys.
func (o Operator) Of(operatorJWT string) bool {
	_, pub, err := public(o.Seed)
	if err != nil {
		return false
	}
	_, sys, err := public(o.SystemSeed)
	if err != nil {
		return false
	}
	oc, err := jwt.DecodeOperatorClaims(operatorJWT)
	return err == nil && oc.Subject == pub && oc.SystemAccount == sys
}

// Account is the wanted state of an account.
type Account struct {
	Name string
	Seed []byte
	// Storage is how many bytes its streams may take on disk.
	Storage int64
	// Revoked are public keys of users that may no longer log in.
	Revoked []string
}

// AccountJWT signs the account. The account may use JetStream within its storage, and a bounded number of connections.
func (o Operator) AccountJWT(a Account) (string, error) {
	kp, _, err := public(o.Seed)
	if err != nil {
		return "", fmt.Errorf("operator's key: %w", err)
	}
	_, pub, err := public(a.Seed)
	if err != nil {
		return "", fmt.Errorf("key of account %s: %w", a.Name, err)
	}
	ac := jwt.NewAccountClaims(pub)
	ac.Name = a.Name
	ac.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: a.Storage, MemoryStorage: 0, Streams: 8, Consumer: 32}
	ac.Limits.Conn = 48 // of up to 16 replicas of the Cloud API, twice in an update, the operators and the agent
	for _, user := range a.Revoked {
		ac.Revoke(user)
	}
	encoded, err := ac.Encode(kp)
	if err != nil {
		return "", fmt.Errorf("sign account %s: %w", a.Name, err)
	}
	return encoded, nil
}

// Permissions of a user; empty lists allow everything in the account. Respond allows answers to requests that the user got, WebSocket to come in
// from outside the cluster too.
type Permissions struct {
	Publish, Subscribe []string
	Respond, WebSocket bool
}

// connections are the kinds of connection on which the server takes the user. They are always named: none would be all.
func (p Permissions) connections() []string {
	if p.WebSocket {
		return []string{jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket}
	}
	return []string{jwt.ConnectionTypeStandard}
}

// Credentials makes a user in an account, as a credentials file.
func Credentials(accountSeed []byte, name string, p Permissions) ([]byte, error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("make the key of user %s: %w", name, err)
	}
	pub, err := user.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("key of user %s: %w", name, err)
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, fmt.Errorf("key of user %s: %w", name, err)
	}
	token, err := UserJWT(accountSeed, name, pub, p)
	if err != nil {
		return nil, err
	}
	return jwt.FormatUserConfig(token, seed)
}

// UserJWT signs a user in an account whose key somebody else made and keeps. It is no secret: without that key it opens nothing.
func UserJWT(accountSeed []byte, name, publicKey string, p Permissions) (string, error) {
	account, _, err := public(accountSeed)
	if err != nil {
		return "", fmt.Errorf("key of the account of user %s: %w", name, err)
	}
	if !nkeys.IsValidPublicUserKey(publicKey) {
		return "", fmt.Errorf("%q is not the public key of a NATS user", publicKey)
	}
	uc := jwt.NewUserClaims(publicKey)
	uc.Name = name
	uc.Pub.Allow.Add(p.Publish...)
	uc.Sub.Allow.Add(p.Subscribe...)
	uc.AllowedConnectionTypes.Add(p.connections()...)
	if p.Respond {
		uc.Resp = &jwt.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
	}
	token, err := uc.Encode(account)
	if err != nil {
		return "", fmt.Errorf("sign user %s: %w", name, err)
	}
	return token, nil
}

// UserKey is the public key in a credentials file.
func UserKey(creds []byte) (string, error) {
	key, err := jwt.ParseDecoratedUserNKey(creds)
	if err != nil {
		return "", fmt.Errorf("credentials: %w", err)
	}
	defer key.Wipe()
	return key.PublicKey()
}

// Belongs says whether a credentials file is a user of the account with these permissions.
func Belongs(creds, accountSeed []byte, p Permissions) bool {
	token, err := jwt.ParseDecoratedJWT(creds)
	if err != nil {
		return false
	}
	pub, err := UserKey(creds)
	return err == nil && Admits(token, accountSeed, pub, p)
}

// Admits says whether a user JWT is of the account and this key, with these permissions.
func Admits(token string, accountSeed []byte, publicKey string, p Permissions) bool {
	_, pub, err := public(accountSeed)
	if err != nil {
		return false
	}
	uc, err := jwt.DecodeUserClaims(token)
	return err == nil && uc.Issuer == pub && uc.Subject == publicKey && same(uc.Pub.Allow, p.Publish) && same(uc.Sub.Allow, p.Subscribe) && (uc.Resp != nil) == p.Respond &&
		same(uc.AllowedConnectionTypes, p.connections())
}

func same(a, b []string) bool {
	x, y := slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(x, y)
}

// Push stores an account's JWT in the server that the system user nc is connected to.
func Push(nc *nats.Conn, accountJWT string) error {
	return system(nc, "$SYS.REQ.CLAIMS.UPDATE", []byte(accountJWT))
}

// Delete removes the account with this seed from the server and disconnects its users.
func (o Operator) Delete(nc *nats.Conn, accountSeed []byte) error {
	_, account, err := public(accountSeed)
	if err != nil {
		return fmt.Errorf("account's key: %w", err)
	}
	return o.remove(nc, account)
}

// MayRemove says whether the server believes the operator's key and lets it remove accounts, by removing none.
func (o Operator) MayRemove(nc *nats.Conn) error { return o.remove(nc) }

func (o Operator) remove(nc *nats.Conn, accounts ...string) error {
	kp, pub, err := public(o.Seed)
	if err != nil {
		return fmt.Errorf("operator's key: %w", err)
	}
	gc := jwt.NewGenericClaims(pub)
	gc.Data["accounts"] = append([]string{}, accounts...)
	token, err := gc.Encode(kp)
	if err != nil {
		return fmt.Errorf("sign the removal of an account: %w", err)
	}
	return system(nc, "$SYS.REQ.CLAIMS.DELETE", []byte(token))
}

// Storage is how many bytes JetStream may keep on disk, of the first server that has enough, or else of the one that has most; 0 is one without JetStream.
func Storage(nc *nats.Conn, enough int64) (int64, error) {
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return 0, fmt.Errorf("subscribe to answers: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.PublishRequest("$SYS.REQ.SERVER.PING.JSZ", inbox, nil); err != nil {
		return 0, fmt.Errorf("ask the servers for their JetStream: %w", err)
	}
	var most int64
	for wait := patience; most < enough; wait = time.Second { // each server of a cluster answers
		m, err := sub.NextMsg(wait)
		switch {
		case err != nil && wait == patience:
			return 0, fmt.Errorf("ask the servers for their JetStream: %w", err)
		case err != nil:
			return most, nil
		}
		var answer struct {
			Data struct {
				Config struct {
					MaxStorage int64 `json:"max_storage"`
				} `json:"config"`
			} `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return 0, fmt.Errorf("the answer of a server about its JetStream is not JSON: %w", err)
		}
		most = max(most, answer.Data.Config.MaxStorage)
	}
	return most, nil
}

// patience is how long the server may take to answer: it writes accounts to its disk.
const patience = 30 * time.Second

func system(nc *nats.Conn, subject string, data []byte) error {
	msg, err := nc.Request(subject, data, patience)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	var answer struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return fmt.Errorf("%s answered with something else than JSON: %w", subject, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: the server refused: %s", subject, answer.Error.Description)
	}
	return nil
}

func public(seed []byte) (nkeys.KeyPair, string, error) {
	if len(bytes.TrimSpace(seed)) == 0 {
		return nil, "", errors.New("is empty")
	}
	kp, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return nil, "", err
	}
	pub, err := kp.PublicKey()
	return kp, pub, err
}

// IsOperatorSeed says whether it is that of an operator's key, or of one of its signing keys.
func IsOperatorSeed(seed []byte) bool {
	_, pub, err := public(seed)
	return err == nil && nkeys.IsValidPublicOperatorKey(pub)
}

// IsCredentials says whether it is a user's credentials file.
func IsCredentials(creds []byte) bool {
	_, err := jwt.ParseDecoratedJWT(creds)
	_, keyErr := jwt.ParseDecoratedUserNKey(creds)
	return err == nil && keyErr == nil
}

// PublicKey of a seed.
func PublicKey(seed []byte) (string, error) {
	_, pub, err := public(seed)
	return pub, err
}

// Reload lets the server that the system user nc is connected to read its configuration again, and its certificate. Connections go on.
func Reload(nc *nats.Conn) error {
	return system(nc, "$SYS.REQ.SERVER."+nc.ConnectedServerId()+".RELOAD", nil)
}

// Ping asks the server for its accounts, which proves that the system user works.
func Ping(nc *nats.Conn) error {
	msg, err := nc.Request("$SYS.REQ.CLAIMS.LIST", nil, patience)
	if err != nil {
		return fmt.Errorf("ask the message server for its accounts: %w", err)
	}
	if len(msg.Data) == 0 {
		return errors.New("the message server answered nothing when asked for its accounts")
	}
	return nil
}
