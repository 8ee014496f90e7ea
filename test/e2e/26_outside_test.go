// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// From outside the cluster, through its gateway, an agent's credentials open the account of its cell, and the cloud's own of the same account are refused.
func TestAnAgentComesInThroughTheGateway(t *testing.T) {
	_, cs := kube(t)
	secret := func(namespace, name, key string) []byte {
		s, err := cs.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Data[key]
	}
	connect := func(creds []byte) (*nats.Conn, error) {
		return nats.Connect("wss://nats."+domain(), nats.RootCAs(caFile()), nats.UserCredentialBytes(creds), nats.Timeout(time.Minute))
	}
	agent, own := secret(cellNamespace, "cell-agent-nats", "agent.creds"), secret(ownSystem, "cell-credentials", "shared.creds")
	eventually(t, "the snapshot of the cell is read from outside", func(ctx context.Context) (bool, string) {
		nc, err := connect(agent)
		if err != nil {
			return false, err.Error()
		}
		defer nc.Close()
		msg, err := nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET.DESIRED.desired.snapshot", nil)
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(string(msg.Data), `"cell":"shared"`), fmt.Sprintf("%.200s", msg.Data)
	})
	eventually(t, "the cloud's own credentials are refused", func(context.Context) (bool, string) {
		nc, err := connect(own)
		if err == nil {
			nc.Close()
			t.Fatal("the cloud's own credentials are taken from outside")
		}
		return errors.Is(err, nats.ErrAuthorization), err.Error()
	})
}
