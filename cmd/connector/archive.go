// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"filippo.io/age"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/runtime"
)

// archiveFlags are those of export and import.
type archiveFlags struct {
	to, from, identity string
	recipients         []age.Recipient
	contexts           []string
}

func (a *archiveFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&a.to, "to", "", "file that the archive is written to; - is the standard output")
	flags.StringVar(&a.from, "from", "", "file that the archive is read from; - is the standard input")
	flags.StringVar(&a.identity, "identity", "", "file with the private key that opens the archive, as age-keygen makes it")
	flags.Func("recipient", "public key that the archive is encrypted to; give several to let any of them open it", func(s string) error {
		r, err := age.ParseX25519Recipient(s)
		a.recipients = append(a.recipients, r)
		return err
	})
	flags.Func("context", "participant context or issuer to export; give several, or none for all", func(s string) error {
		a.contexts = append(a.contexts, s)
		return nil
	})
}

// export writes an archive. Its file appears when it is whole.
func export(ctx context.Context, log *slog.Logger, cfg config.Config, a archiveFlags) error {
	if a.to == "" || len(a.recipients) == 0 {
		return errors.New("export: --to and --recipient are needed")
	}
	var w io.Writer = os.Stdout
	finish := func() error { return nil }
	if a.to != "-" {
		part := a.to + ".part"
		f, err := os.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) // #nosec G304 -- the operator names the file
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(part) }() // unless it was renamed
		defer func() { _ = f.Close() }()
		w, finish = f, func() error {
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				return err
			}
			return os.Rename(part, a.to)
		}
	}
	h, n, err := runtime.Export(ctx, cfg, w, a.recipients, a.contexts...)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if err := finish(); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	log.Info("the archive is written", "to", a.to, "contexts", h.Contexts, "rows", n.Rows, "secrets", n.Secrets)
	return nil
}

// restore reads an archive.
func restore(ctx context.Context, log *slog.Logger, cfg config.Config, a archiveFlags) error {
	if a.from == "" || a.identity == "" {
		return errors.New("import: --from and --identity are needed")
	}
	key, err := os.Open(a.identity)
	if err != nil {
		return fmt.Errorf("--identity: %w", err)
	}
	defer func() { _ = key.Close() }()
	identities, err := age.ParseIdentities(key)
	if err != nil {
		return fmt.Errorf("--identity %s: it holds no private key that age-keygen makes", a.identity) // the cause may quote it
	}
	r := os.Stdin
	if a.from != "-" {
		if r, err = os.Open(a.from); err != nil {
			return fmt.Errorf("--from: %w", err)
		}
		defer func() { _ = r.Close() }()
	}
	h, n, err := runtime.Import(ctx, cfg, r, identities...)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	log.Info("the archive is imported", "from", a.from, "made", h.MadeAt, "contexts", h.Contexts, "rows", n.Rows, "secrets", n.Secrets)
	return nil
}
