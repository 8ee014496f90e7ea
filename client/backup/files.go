// SPDX-License-Identifier: Apache-2.0

package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/kaphera/kaphera/edcoperator/workload"
)

// Write writes an archive of each runtime, encrypted to the recipients, into a directory, which appears when all of them are whole. Of contexts, when
// some are given, only that of the connector, with them alone. The cell goes on working.
func (c *Cell) Write(ctx context.Context, directory string, recipients []age.Recipient, contexts ...string) (out []Archive, err error) {
	directory = filepath.Clean(directory)
	if _, err := os.Lstat(directory); !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s is there: name a directory that is made", directory), err)
	}
	all, err := c.units(ctx)
	if err != nil {
		return nil, err
	}
	part, err := os.MkdirTemp(filepath.Dir(directory), filepath.Base(directory)+".part-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(part) }() // unless it was renamed
	command := []string{"export", "--config=/etc/kaphera/config.yaml", "--to=-"}
	for _, r := range recipients {
		command = append(command, fmt.Sprintf("--recipient=%s", r))
	}
	for _, name := range contexts {
		command = append(command, "--context="+name)
	}
	for _, u := range all {
		if len(contexts) > 0 && u.Roles[0] == workload.Issuer {
			continue
		}
		a, err := c.write(ctx, &u, filepath.Join(part, u.Name+extension), command)
		if err != nil {
			return nil, err
		}
		a.File = filepath.Join(directory, u.Name+extension)
		out = append(out, *a)
		c.Progress("%s: %d rows and %d secrets of %s", u.Name, a.Rows, a.Secrets, strings.Join(a.Contexts, ", "))
	}
	if err := sync(part); err != nil {
		return nil, err
	}
	if err := os.Rename(part, directory); err != nil {
		return nil, err
	}
	return out, sync(filepath.Dir(directory))
}

// write writes the archive of one runtime, and proves that it is here as it was made.
func (c *Cell) write(ctx context.Context, u *unit, file string, command []string) (*Archive, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // #nosec G304 -- the caller names the directory
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	s, err := c.run(ctx, u, workload.Backup, nil, io.MultiWriter(f, sum), command...)
	if err != nil {
		return nil, err
	}
	a := &Archive{Runtime: u.Name, Contexts: s.Contexts, Rows: s.Rows, Secrets: s.Secrets, SHA256: hex.EncodeToString(sum.Sum(nil))}
	if s.SHA256 != a.SHA256 {
		return nil, fmt.Errorf("%s: the archive was cut off or changed on the way: it was made with SHA-256 %s and came with %s", u.Name, s.SHA256, a.SHA256)
	}
	return a, errors.Join(f.Sync(), f.Close())
}

func sync(directory string) error {
	d, err := os.Open(directory) // #nosec G304 -- the caller's
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Restore brings archives into runtimes which have nothing and of which nothing runs: those in a directory, or one file of it. Each is restored whole or
// not at all; with an error it returns those that were before it. It waits, as long as ctx lets it, until the operators have prepared what runs nothing.
func (c *Cell) Restore(ctx context.Context, from string, identities []age.Identity) (out []Archive, err error) {
	files, err := filesOf(from)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range files {
		names = append(names, runtimeOf(filepath.Base(file)))
	}
	all, err := c.awaitIdle(ctx, names)
	if err != nil {
		return nil, err
	}
	for n, file := range files {
		s, err := c.read(ctx, &all[n], file, identities)
		if err != nil {
			return out, err
		}
		out = append(out, Archive{Runtime: names[n], File: file, MadeAt: s.Made, Contexts: s.Contexts, Rows: s.Rows, Secrets: s.Secrets})
		c.Progress("%s: restored %d rows and %d secrets of %s", names[n], s.Rows, s.Secrets, strings.Join(s.Contexts, ", "))
	}
	return out, nil
}

// read has one runtime read an archive. It is opened here and sealed again with a key for this once, so that the one that opens all archives stays here.
func (c *Cell) read(ctx context.Context, u *unit, file string, identities []age.Identity) (*said, error) {
	f, err := os.Open(file) // #nosec G304 -- the caller names it
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	opened, err := age.Decrypt(f, identities...)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file, err)
	}
	once, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	in, out := io.Pipe()
	sealing := make(chan error, 1)
	go func() {
		err := seal(out, opened, once.Recipient())
		_ = out.CloseWithError(err)
		sealing <- err
	}()
	key := strings.NewReader(once.String() + "\n\n") // the archive begins after an empty line
	s, err := c.run(ctx, u, workload.Restore, io.MultiReader(key, in), nil, "import", "--config=/etc/kaphera/config.yaml", "--from=-", "--identity=-")
	_ = in.Close() // ends what has not been read
	if here := <-sealing; here != nil && !errors.Is(here, io.ErrClosedPipe) {
		return nil, fmt.Errorf("%s is damaged: %w", file, here) // why it was cut short there
	}
	return s, err
}

func seal(to io.Writer, from io.Reader, recipient age.Recipient) error {
	w, err := age.Encrypt(to, recipient)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, from); err != nil {
		return err
	}
	return w.Close()
}

// filesOf are the archives in a directory, or the one that is named itself.
func filesOf(from string) ([]string, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	files := []string{from}
	if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(from, "*"+extension)); err != nil {
			return nil, err
		}
		slices.Sort(files)
	}
	if len(files) == 0 || !strings.HasSuffix(files[0], extension) {
		return nil, fmt.Errorf("%s is no archive NAME%s and holds none: NAME is that of the Connector or CredentialIssuer", from, extension)
	}
	return files, nil
}
