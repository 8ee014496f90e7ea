// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"filippo.io/age"

	"github.com/kaphera/kaphera/connector/config"
	"github.com/kaphera/kaphera/connector/runtime"
)

// archiveFlags are those of export and import.
type archiveFlags struct {
	to, from, identity string
	recipients         []age.Recipient
	contexts           []string
	hold, nowhere      bool
}

func (a *archiveFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&a.to, "to", "", "file that the archive is written to; - is the standard output")
	flags.StringVar(&a.from, "from", "", "file that the archive is read from; - is the standard input")
	flags.StringVar(&a.identity, "identity", "", "file with the private key that opens the archive, as age-keygen makes it; - is the standard input, to the first empty line")
	flags.BoolVar(&a.hold, "hold", false, "end, before the export, all that the connector does for the contexts, which move to another one")
	flags.BoolVar(&a.nowhere, "imported-nowhere", false, "say that the archive of the contexts to release was imported nowhere: else there would be two of them")
	flags.Func("recipient", "public key that the archive is encrypted to; give several to let any of them open it", func(s string) error {
		r, err := age.ParseX25519Recipient(s)
		a.recipients = append(a.recipients, r)
		return err
	})
	flags.Func("context", "participant context or issuer to export, or participant context to release; give several, or none to export all", func(s string) error {
		a.contexts = append(a.contexts, s)
		return nil
	})
}

// export writes an archive. Its file appears when it is whole.
func export(ctx context.Context, log *slog.Logger, cfg config.Config, a archiveFlags) error {
	if a.to == "" || len(a.recipients) == 0 {
		return errors.New("export: --to and --recipient are needed")
	}
	if a.hold && len(a.contexts) == 0 {
		return errors.New("export: --hold needs --context")
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
			if err := os.Rename(part, a.to); err != nil {
				return err
			}
			d, err := os.Open(filepath.Dir(a.to))
			if err != nil {
				return err
			}
			return errors.Join(d.Sync(), d.Close())
		}
	}
	held := ""
	if a.hold { // once the file can be written
		if err := runtime.Hold(ctx, cfg, a.contexts...); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		log.Info("the contexts are held; connector release lets them go on here", "contexts", a.contexts)
		held = "; the contexts are held still: export again, or let them go on here with connector release --imported-nowhere"
	}
	sum := sha256.New()
	h, n, err := runtime.Export(ctx, cfg, io.MultiWriter(w, sum), a.recipients, a.contexts...)
	if err == nil {
		err = finish()
	}
	if err != nil {
		return fmt.Errorf("export: %w%s", err, held)
	}
	log.Info("the archive is written", "to", a.to, "contexts", h.Contexts, "rows", n.Rows, "secrets", n.Secrets, "sha256", hex.EncodeToString(sum.Sum(nil)))
	return nil
}

// readKey reads the file, or what comes from in before its first empty line.
func readKey(in *bufio.Reader, file string) ([]byte, error) {
	if file != "-" {
		return os.ReadFile(file) // #nosec G304 -- the operator names the file
	}
	var key []byte
	for len(key) < maxKey {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil, fmt.Errorf("the standard input has no empty line after the private key: %w", err)
		}
		if len(line) == 1 {
			return key, nil
		}
		key = append(key, line...)
	}
	return nil, fmt.Errorf("the standard input has no empty line in its first %d bytes", maxKey)
}

const maxKey = 1 << 16

// release lets contexts go on that were held.
func release(ctx context.Context, log *slog.Logger, cfg config.Config, a archiveFlags) error {
	if len(a.contexts) == 0 || !a.nowhere {
		return errors.New("release: --context and --imported-nowhere are needed")
	}
	if err := runtime.Release(ctx, cfg, a.contexts...); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	log.Info("the contexts go on here", "contexts", a.contexts)
	return nil
}

// restore reads an archive.
func restore(ctx context.Context, log *slog.Logger, cfg config.Config, a archiveFlags) error {
	if a.from == "" || a.identity == "" {
		return errors.New("import: --from and --identity are needed")
	}
	in := bufio.NewReader(os.Stdin)
	key, err := readKey(in, a.identity)
	if err != nil {
		return fmt.Errorf("--identity: %w", err)
	}
	identities, err := age.ParseIdentities(bytes.NewReader(key))
	if err != nil {
		return fmt.Errorf("--identity %s: it holds no private key that age-keygen makes", a.identity) // the cause may quote it
	}
	var r io.Reader = in
	if a.from != "-" {
		f, err := os.Open(a.from)
		if err != nil {
			return fmt.Errorf("--from: %w", err)
		}
		defer func() { _ = f.Close() }()
		r = f
	}
	h, n, err := runtime.Import(ctx, cfg, r, identities...)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	log.Info("the archive is imported", "from", a.from, "made", h.MadeAt, "contexts", h.Contexts, "rows", n.Rows, "secrets", n.Secrets)
	return nil
}
