// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/kaphera/kaphera/client/backup"
)

// cellBackup is what kaphera cell backup and restore were called with.
type cellBackup struct {
	cellInstall

	namespace, vaultSecret string
	to, from, identity     string
	recipients, only       []string
}

// BackupReport is what a backup or a restore came to.
type BackupReport struct {
	Cell      string           `json:"cell"`
	Namespace string           `json:"namespace"`
	Archives  []backup.Archive `json:"archives"`
}

func (f *cellBackup) flags(cmd *cobra.Command) {
	f.cellInstall.flags(cmd, time.Hour)
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "namespace of the connector (default: cell-CELL)")
	cmd.Flags().StringVar(&f.vaultSecret, "vault-secret", "", "Secret in the namespace with which to log in to the Vault: role-id and secret-id where its connectors use AppRole, or a token of its own")
}

func (a *app) cellBackupCommand() *cobra.Command {
	var f cellBackup
	cmd := &cobra.Command{
		Use: "backup CELL --to DIRECTORY --recipient KEY", Short: "Write what a cell keeps into encrypted archives", Args: cobra.ExactArgs(1),
		Long: "Writes an archive of the cell's connector and of each of its issuers: their participants' rows, audit trails, private keys and secrets. Each is encrypted\n" +
			"in the cell to the public keys given, so that whoever keeps it cannot read it. The cell goes on working. The directory appears when all of it is whole.\n" +
			"Nothing is asked of the cloud. docs/operator.md, \"Back up and restore\", has the whole path into an empty cluster, and the rights that it takes.",
		Example: "  age-keygen -o backup.key\n  kaphera cell backup oem-frankfurt --kubeconfig frankfurt.kubeconfig --to oem-frankfurt-$(date +%F) --recipient age1…",
		RunE: func(cmd *cobra.Command, args []string) error {
			var recipients []age.Recipient
			for _, key := range f.recipients {
				r, err := age.ParseX25519Recipient(key)
				if err != nil {
					return usage("a --recipient is no public key that age-keygen makes (age1…)") // it may be the private one
				}
				recipients = append(recipients, r)
			}
			return a.withArchives(cmd.Context(), args[0], &f, "Backed up", func(ctx context.Context, c *backup.Cell) ([]backup.Archive, error) {
				return c.Write(ctx, f.to, recipients, f.only...)
			})
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&f.to, "to", "", "directory to make, for one file per connector and issuer")
	cmd.Flags().StringArrayVar(&f.recipients, "recipient", nil, "public key that the archives are encrypted to; give several to let any of them open them")
	cmd.Flags().StringArrayVar(&f.only, "only", nil, "participant context to back up, without issuers; may be given several times (default: all)")
	for _, name := range []string{"to", "recipient"} {
		_ = cmd.MarkFlagRequired(name) // the flag is there
	}
	return cmd
}

func (a *app) cellRestoreCommand() *cobra.Command {
	var f cellBackup
	cmd := &cobra.Command{
		Use: "restore CELL --from DIRECTORY --identity FILE", Short: "Bring archives into an empty cell", Args: cobra.ExactArgs(1),
		Long: "Brings archives that kaphera cell backup wrote into a cell that has nothing of their participants, has the host names that the one before had, and\n" +
			"of which nothing runs: its replicas are 0, and were when it was made. Each archive is restored whole or not at all. The private key stays here: what\n" +
			"is sent is sealed again with a key for this once. Afterwards set the cell's replicas again. What happened after the archives were made is lost.",
		Example: "  kaphera cell restore oem-frankfurt --kubeconfig frankfurt.kubeconfig --from oem-frankfurt-2026-11-28 --identity backup.key",
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := os.ReadFile(f.identity)
			if err != nil {
				return usage("--identity: %v", err)
			}
			identities, err := age.ParseIdentities(bytes.NewReader(raw))
			if err != nil {
				return usage("--identity %s holds no private key that age-keygen makes", f.identity) // the cause may quote it
			}
			return a.withArchives(cmd.Context(), args[0], &f, "Restored", func(ctx context.Context, c *backup.Cell) ([]backup.Archive, error) {
				return c.Restore(ctx, f.from, identities)
			})
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&f.from, "from", "", "directory of archives, or one of them")
	cmd.Flags().StringVar(&f.identity, "identity", "", "file with the private key that opens them")
	for _, name := range []string{"from", "identity"} {
		_ = cmd.MarkFlagRequired(name) // the flag is there
	}
	return cmd
}

func (a *app) withArchives(ctx context.Context, cell string, f *cellBackup, done string, work func(context.Context, *backup.Cell) ([]backup.Archive, error)) error {
	ctx, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	cluster, _, err := a.cluster(f.kubeconfig, f.kubeContext)
	if err != nil {
		return err
	}
	if cluster == nil {
		return usage("no kubeconfig: name the cluster of the cell with --kubeconfig")
	}
	c, err := backup.Open(cluster, first(f.namespace, "cell-"+cell))
	if err != nil {
		return err
	}
	c.VaultSecret, c.Progress = f.vaultSecret, a.progress
	archives, err := work(ctx, c)
	if err != nil {
		if len(archives) > 0 {
			err = fmt.Errorf("%w; %s was restored before: give --from the file of what is left", err, archives[len(archives)-1].File)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fail(ExitFailed, "repeat it with a longer --timeout", "not in %s: %v", f.patience, err)
		}
		return err
	}
	if structured, err := a.structured(BackupReport{Cell: cell, Namespace: c.Namespace, Archives: archives}); structured {
		return err
	}
	for _, r := range archives {
		fprintf(a.out, "%s %s: %d rows and %s of %s\n", done, r.File, r.Rows, count(int(r.Secrets), "secret"), strings.Join(r.Contexts, ", "))
	}
	return nil
}
