// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaphera/kaphera/client"
)

const demoPolicy = "carbon-footprint" // the use case whose policy is tried

// tryLive: the contract policy of a use case, negotiated by two participants that hold what the pilot's two hold.
func (d *demo) tryLive(ctx context.Context) error {
	u, err := d.c.GetUseCaseWithResponse(ctx, demoPolicy)
	if err != nil {
		return err
	}
	supplier, err := d.participant(ctx, d.supplier)
	if err != nil {
		return err
	}
	consumer, err := d.participant(ctx, d.consumer)
	if err != nil {
		return err
	}
	if err := d.next(ctx, "The policy of %s is tried before anybody relies on it: two connectors made for the test really negotiate", demoPolicy); err != nil {
		return err
	}
	type holder struct {
		Credentials []client.HolderCredential `json:"credentials"`
	}
	var held struct {
		Provider holder `json:"provider"`
		Consumer holder `json:"consumer"`
	}
	asTheyAre := func(string, map[string]any) {}
	if held.Provider.Credentials, err = credentialsLike(supplier, "BPNL0000000TRIAL", asTheyAre); err != nil {
		return err
	}
	if held.Consumer.Credentials, err = credentialsLike(consumer, "BPNL000000TRIAL2", asTheyAre); err != nil {
		return err
	}
	parties, err := json.Marshal(held)
	if err != nil {
		return fmt.Errorf("parties: %w", err)
	}
	dir, err := os.MkdirTemp("", "kaphera-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	policy, partiesFile := filepath.Join(dir, "policy.json"), filepath.Join(dir, "parties.json")
	for file, content := range map[string][]byte{policy: u.JSON200.Spec.ContractPolicy, partiesFile: parties} {
		if err := os.WriteFile(file, content, ownerOnly); err != nil {
			return err
		}
	}
	said, err := d.command(ctx, d.app, ExitOK, "policy", "test", policy, "--profile", u.JSON200.Spec.Profile, "--credentials", partiesFile, "--live", "--cell", supplier.Spec.Cell, "--timeout", d.patience.String())
	if err != nil {
		return err
	}
	d.tellLines(said[max(0, strings.Index(said, "What the two connectors checked")):])
	return nil
}
