// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kaphera/kaphera/client"
)

func (a *app) assetCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "asset", Short: "Create, replace or remove an asset", Args: cobra.NoArgs}
	var file string
	put := &cobra.Command{
		Use: "put PARTICIPANT -f FILE", Short: "Create or replace an asset", Args: cobra.ExactArgs(1),
		Long: "The file (YAML or JSON, - for standard input) has id, properties and dataAddress:\n\n" +
			"  id: pcf-gh-4711\n  properties:\n    title: Footprint of gearbox housing GH-4711\n  dataAddress:\n    type: HttpData\n    baseUrl: https://backend.internal/pcf/gh-4711\n    authKey: X-Api-Key\n    secretName: pcf-backend-key",
		RunE: func(cmd *cobra.Command, args []string) error {
			asset, err := a.readAsset(file)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			r, err := c.PutAssetWithResponse(cmd.Context(), args[0], asset.ID, asset)
			if err != nil {
				return err
			}
			if done, err := a.structured(r.JSON200); done {
				return err
			}
			a.say("Asset %s put. Next: kaphera offer create %s --asset %s --use-case NAME", asset.ID, args[0], asset.ID)
			return nil
		},
	}
	put.Flags().StringVarP(&file, "file", "f", "", "file with the asset, - for standard input")
	_ = put.MarkFlagRequired("file") // the flag exists
	remove := &cobra.Command{
		Use: "delete PARTICIPANT ASSET", Short: "Remove an asset", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := c.DeleteAssetWithResponse(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			a.say("Asset %s removed", args[1])
			return nil
		},
	}
	cmd.AddCommand(put, remove)
	return cmd
}

func (a *app) readAsset(file string) (client.Asset, error) {
	var raw []byte
	var err error
	if file == "-" {
		raw, err = io.ReadAll(a.in)
	} else {
		raw, err = os.ReadFile(file) //nolint:gosec // the path is the caller's
	}
	var asset client.Asset
	if err == nil {
		err = yaml.UnmarshalStrict(raw, &asset)
	}
	if err != nil {
		return asset, fail(ExitUsage, "see: kaphera asset put --help", "asset file %s: %s", file, err)
	}
	if asset.ID == "" || asset.DataAddress == nil {
		return asset, fail(ExitUsage, "see: kaphera asset put --help", "asset file %s: id and dataAddress are needed", file)
	}
	if asset.Properties == nil {
		asset.Properties = map[string]any{}
	}
	return asset, nil
}
