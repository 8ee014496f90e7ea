// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kaphera/kaphera/connector/audit"
	"github.com/kaphera/kaphera/connector/vault"
)

// restored is the body of a record of type audit.ParticipantRestored.
type restored struct {
	ArchiveOf time.Time `json:"archiveOf"` // when it was made
}

// Import brings an archive into a connector that has nothing of its contexts: all of it or nothing, whole and proven before any of it counts. An import
// that was cut off, also where the Vault has been written already, is made again in the same way. It takes the account that migrates, and a Vault
// that lets it read and create.
func Import(ctx context.Context, cc *pgx.ConnConfig, kv vault.KV, r io.Reader, identities ...age.Identity) (*Header, Counts, error) {
	return bring(ctx, cc, r, func(i *importer) error { return putSecrets(ctx, kv, i.secrets) }, identities...)
}

// bring imports an archive; last is what is done with its secrets, before the commit.
func bring(ctx context.Context, cc *pgx.ConnConfig, r io.Reader, last func(*importer) error, identities ...age.Identity) (*Header, Counts, error) {
	opened, err := age.Decrypt(r, identities...)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, Counts{}, ErrKey
	case err != nil:
		return nil, Counts{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	conn, tx, err := begin(ctx, cc, pgx.TxOptions{})
	if err != nil {
		return nil, Counts{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	i := importer{tx: tx}
	if err := i.read(ctx, opened); err != nil {
		return nil, Counts{}, err
	}
	if err := i.checkProfiles(ctx); err != nil {
		return nil, Counts{}, err
	}
	for _, h := range i.heads {
		if err := i.prove(ctx, h); err != nil {
			return nil, Counts{}, fmt.Errorf("%w: the audit chain %s of %s: %w", ErrDamaged, h.Chain, h.Ctx, err)
		}
	}
	for _, h := range i.heads {
		if !h.Open {
			continue
		}
		if err := audit.Append(ctx, tx, h.Ctx, audit.Entry{Type: audit.ParticipantRestored, Body: restored{i.header.MadeAt}}); err != nil {
			return nil, Counts{}, err
		}
	}
	// Last, since it is not part of the transaction: what the Vault has if this ends here is what the next attempt brings.
	if err := last(&i); err != nil {
		return nil, Counts{}, err
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, Counts{}, fmt.Errorf("commit: %w", err)
	}
	return i.header, i.counts, nil
}

type importer struct {
	tx     pgx.Tx
	header *Header
	known  map[string]table
	// Of the archive: heads of its chains, and names of its profiles.
	heads    []audit.Head
	profiles []string
	secrets  []secret
	// last is the last record that is here of chains that come back.
	last   map[string]int64
	counts Counts
}

const uniqueViolation = "23505"

// atOnce is how many rows are sent in one round trip.
const atOnce = 200

// read reads the archive to its end, and writes its rows.
func (i *importer) read(ctx context.Context, opened io.Reader) error {
	packed, err := gzip.NewReader(opened)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	in := json.NewDecoder(packed)
	next := func() (e entry, err error) {
		if err = in.Decode(&e); errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			err = fmt.Errorf("%w: after %d rows: %w", ErrDamaged, i.counts.Rows, err)
		}
		return e, err
	}
	first, err := next()
	if err != nil {
		return err
	}
	if err := i.begin(ctx, first.Header); err != nil {
		return err
	}
	var t table
	var batch [][]*string
	for {
		e, err := next()
		if err != nil {
			return err
		}
		if e.Row != nil {
			batch = append(batch, e.Row)
			i.counts.Rows++
		}
		if e.Row == nil || len(batch) == atOnce {
			if err := i.write(ctx, &t, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
		switch {
		case e.Row != nil:
		case e.Table != nil:
			known, ok := i.known[e.Table.Name]
			if !ok || !slices.Equal(known.Columns, e.Table.Columns) {
				return fmt.Errorf("%w: this connector has no table %s with columns %s", ErrVersion, e.Table.Name, strings.Join(e.Table.Columns, ", "))
			}
			t = known
		case e.Secret != nil:
			owner, ok := vault.Owner(e.Secret.Path)
			if !ok || !slices.Contains(i.header.Contexts, owner) {
				return fmt.Errorf("%w: it has a secret %q, which is not of one of its contexts", ErrDamaged, e.Secret.Path)
			}
			i.secrets = append(i.secrets, *e.Secret)
			i.counts.Secrets++
		case e.End != nil:
			if *e.End != i.counts {
				return fmt.Errorf("%w: it should hold %+v and holds %+v", ErrDamaged, *e.End, i.counts)
			}
			// Whoever has not read on to the end of the file has not seen proven that this is the end.
			err := in.Decode(&entry{})
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = errors.New("there is something after its end")
			}
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		default:
			return fmt.Errorf("%w: an entry is of no kind that is known", ErrDamaged)
		}
	}
}

// begin checks that the archive can be brought in at all.
func (i *importer) begin(ctx context.Context, h *Header) error {
	if h == nil || h.Format != format {
		return fmt.Errorf("%w: it does not begin with a header of %s", ErrVersion, format)
	}
	own, err := versions(ctx, i.tx)
	if err != nil {
		return err
	}
	for _, s := range schemas {
		if own[s] != h.Schemas[s] {
			return fmt.Errorf("%w: it has version %d of schema %s, and this connector version %d: import it with the release that made it, and update then", ErrVersion, h.Schemas[s], s, own[s])
		}
	}
	all, err := tables(ctx, i.tx)
	if err != nil {
		return err
	}
	i.header, i.known = h, map[string]table{}
	for _, t := range all {
		i.known[t.Name] = t
	}
	return vacant(ctx, i.tx, all, h.Contexts)
}

// vacant returns an error that wraps ErrExists when the connector has something of one of the contexts.
func vacant(ctx context.Context, tx pgx.Tx, all []table, contexts []string) error {
	for _, t := range all {
		if t.shared != "" || t.Name == records {
			continue
		}
		there := "SELECT ctx FROM " + t.identifier() + " WHERE ctx = ANY ($1)"
		if t.Name == chains {
			there += " AND open" // what is closed belongs to one that was deleted
		}
		var context string
		err := tx.QueryRow(ctx, there+" LIMIT 1", contexts).Scan(&context)
		if err == nil {
			return fmt.Errorf("%q %w here, in %s: if it is another one delete it first, or bring this one into another connector", context, ErrExists, t.Name)
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
	}
	return nil
}

// write inserts rows.
func (i *importer) write(ctx context.Context, t *table, rows [][]*string) error {
	if len(rows) == 0 {
		return nil
	}
	columns, types := t.Columns, t.types
	var names, values []string
	if t.Name == chains { // an empty chain, which its records fill
		columns, types = columns[:3], types[:3]
		names, values = []string{"importing"}, []string{"pg_current_xact_id()"}
	}
	for n, c := range columns {
		names = append(names, pgx.Identifier{c}.Sanitize())
		values = append(values, fmt.Sprintf("$%d::text::%s", n+1, types[n]))
	}
	sql := "INSERT INTO " + t.identifier() + " (" + strings.Join(names, ", ") + ") VALUES (" + strings.Join(values, ", ") + ")"
	if t.shared != "" {
		sql += " ON CONFLICT DO NOTHING"
	}
	of := slices.Index(columns, "ctx")
	b := &pgx.Batch{}
	chain, seq := slices.Index(columns, "chain"), slices.Index(columns, "seq")
	for _, row := range rows {
		if len(row) != len(t.Columns) || of >= 0 && (row[of] == nil || !slices.Contains(i.header.Contexts, *row[of])) {
			return fmt.Errorf("%w: a row of %s has another form, or is of a context of which the archive is not", ErrDamaged, t.Name)
		}
		if t.Name == chains {
			h, err := headOf(row)
			if err != nil {
				return fmt.Errorf("%w: %s: %w", ErrDamaged, t.Name, err)
			}
			i.heads = append(i.heads, h)
			if back, err := i.comesBack(ctx, h); err != nil || back {
				if err != nil {
					return fmt.Errorf("import %s: %w", t.Name, err)
				}
				continue
			}
		}
		if t.Name == records && row[chain] != nil && row[seq] != nil {
			if n, err := strconv.ParseInt(*row[seq], 10, 64); err == nil && n <= i.last[*row[chain]] {
				continue
			}
		}
		if t.Name == profiles {
			i.profiles = append(i.profiles, *cmp.Or(row[0], new(string)))
		}
		args := make([]any, len(columns))
		for n := range columns {
			args[n] = row[n]
		}
		b.Queue(sql, args...)
	}
	if err := i.tx.SendBatch(ctx, b).Close(); err != nil {
		var pe *pgconn.PgError
		switch {
		case !errors.As(err, &pe):
		case pe.Code == uniqueViolation && t.Name == chains:
			err = fmt.Errorf("%w: the audit trail of the participant that this is an archive of stayed here when it was deleted, and cannot be opened again: import into another connector", ErrExists)
		case pe.Code == uniqueViolation:
			err = fmt.Errorf("%w: %w", ErrExists, err)
		case pe.Code == audit.CodeNoChain || pe.Code == audit.CodeRefused:
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return fmt.Errorf("import %s: %w", t.Name, busy(err))
	}
	return nil
}

// comesBack finds the chain of a participant that was moved away from this connector, and lets it go on after its last record here: whether the next one
// of the archive follows is for the database to judge. A chain that had ended before it moved may be here as it is.
func (i *importer) comesBack(ctx context.Context, h audit.Head) (bool, error) {
	var here audit.Head
	var moving bool
	err := i.tx.QueryRow(ctx, "SELECT seq, encode(hash, 'hex'), open, moving FROM audit.chains WHERE id = $1::text::uuid AND ctx = $2", h.Chain, h.Ctx).Scan(&here.Seq, &here.Hash, &here.Open, &moving)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case !moving && (here.Open || h.Open || here.Seq != h.Seq || here.Hash != h.Hash):
		return false, nil // the insert says why
	case moving && h.Seq < here.Seq:
		return false, fmt.Errorf("%w: the audit trail of %s was moved away from here with %d records, and the archive has %d of them: export it where it is now", ErrExists, h.Ctx, here.Seq, h.Seq)
	}
	if i.last == nil {
		i.last = map[string]int64{}
	}
	i.last[h.Chain] = here.Seq
	if moving {
		_, err = i.tx.Exec(ctx, "UPDATE audit.chains SET open = $2, moving = false, importing = pg_current_xact_id() WHERE id = $1::text::uuid", h.Chain, h.Open)
	}
	return true, err
}

// headOf reads a row of audit.chains: id, ctx, open, seq, at, hash.
func headOf(row []*string) (audit.Head, error) {
	for _, v := range row {
		if v == nil {
			return audit.Head{}, errors.New("a value is missing")
		}
	}
	if open := *row[2]; open != "true" && open != "false" { // PostgreSQL takes more words than these
		return audit.Head{}, fmt.Errorf("open is %q", open)
	}
	h := audit.Head{Chain: *row[0], Ctx: *row[1], Open: *row[2] == "true", Hash: strings.TrimPrefix(*row[5], `\x`)}
	var err error
	if h.Seq, err = strconv.ParseInt(*row[3], 10, 64); err != nil {
		return h, err
	}
	h.At, err = time.Parse("2006-01-02 15:04:05.999999-07", *row[4])
	h.At = h.At.UTC()
	return h, err
}

// checkProfiles refuses dataspace profiles of which none of the participants is: they count for others who take part in them later.
func (i *importer) checkProfiles(ctx context.Context) error {
	var strange []string
	err := i.tx.QueryRow(ctx, `SELECT array_agg(p) FROM unnest($2::text[]) p
		WHERE NOT EXISTS (SELECT FROM control_plane.participants c WHERE c.ctx = ANY ($1) AND p = ANY (c.profile || c.further_profiles))`, i.header.Contexts, i.profiles).Scan(&strange)
	if err == nil && len(strange) > 0 {
		err = fmt.Errorf("%w: none of its participants takes part in dataspace profile %q", ErrDamaged, strange[0])
	}
	return err
}

// prove verifies a chain as it is in the database now, and that it ends where the archive says.
func (i *importer) prove(ctx context.Context, h audit.Head) error {
	export, lines := io.Pipe()
	ended := make(chan struct{})
	go func() {
		lines.CloseWithError(writeChain(ctx, i.tx, h, lines))
		close(ended)
	}()
	_, err := audit.Verify(export, nil)
	_ = export.Close() // lets the other end, which uses the transaction
	<-ended
	return err
}

func writeChain(ctx context.Context, tx pgx.Tx, h audit.Head, w io.Writer) error {
	for after := int64(0); after < h.Seq; after += atOnce {
		records, err := audit.Records(ctx, tx, h, after, atOnce)
		if err != nil {
			return err
		}
		if len(records) == 0 {
			break // fewer than the head says, which verifying finds
		}
		for _, r := range records {
			if err := audit.WriteRecord(w, r); err != nil {
				return err
			}
		}
	}
	return audit.WriteHead(w, h)
}

// putSecrets writes secrets, none of them where the Vault has another one under its path.
func putSecrets(ctx context.Context, kv vault.KV, secrets []secret) error {
	var fresh []secret
	for _, s := range secrets {
		has, err := kv.Read(ctx, s.Path)
		switch {
		case errors.Is(err, vault.ErrNotFound):
			fresh = append(fresh, s)
		case err != nil:
			return fmt.Errorf("read %s from the vault: %w", s.Path, err)
		case !maps.Equal(has, s.Data):
			return fmt.Errorf("another secret %s %w in the vault: delete it first", s.Path, ErrExists)
		}
	}
	for _, s := range fresh {
		if err := kv.Create(ctx, s.Path, s.Data); err != nil {
			return fmt.Errorf("write %s to the vault: %w", s.Path, err)
		}
	}
	return nil
}
