package catalog

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"
	"time"
)

// A backup is text, a JSON object per line: a header, the records in key
// order as of one revision, a trailer with their number and the SHA-256 of
// all lines before it. It says nothing of the KV it came from, so it is also
// the way from one to another.
const backupVersion = 1

type backupHeader struct {
	Backup   int       `json:"platter_backup"`
	Taken    time.Time `json:"taken"`
	Revision int64     `json:"revision"`
}

type backupRecord struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

type backupTrailer struct {
	Records int    `json:"records"`
	SHA256  string `json:"sha256"`
}

// Backup writes the whole catalog, as of one revision, to w. Uploads under
// way and garbage are in it, so that a restored gateway can clean up.
func (c *Catalog) Backup(ctx context.Context, w io.Writer) error {
	if err := Backup(ctx, c.kv, c.now(), w); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}

// Backup writes the catalog in kv to w.
func Backup(ctx context.Context, kv KV, now time.Time, w io.Writer) error {
	schema, err := kv.Get(ctx, keySchema)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	buffer := bufio.NewWriterSize(w, 1<<16)
	sum := sha256.New()
	out := json.NewEncoder(io.MultiWriter(buffer, sum))
	out.SetEscapeHTML(false)
	if err := out.Encode(backupHeader{backupVersion, moment(now), schema.AsOf}); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	n := 0
	for p, err := range kv.List(ctx, "", "") {
		if err == nil && !kept(p.Key) {
			continue
		}
		if err == nil {
			err = out.Encode(backupRecord{p.Key, string(p.Value)})
		}
		if err != nil {
			return fmt.Errorf("backup: after %d records: %w", n, err)
		}
		n++
	}
	if err := json.NewEncoder(buffer).Encode(backupTrailer{n, hex.EncodeToString(sum.Sum(nil))}); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return buffer.Flush()
}

// Restore fills kv from a backup. A kv that holds anything is fs.ErrExist,
// except what a restore that was never finished has left, which is removed
// first. Until the last record is in, no Catalog opens kv.
func Restore(ctx context.Context, kv KV, r io.Reader) error {
	if err := clearForRestore(ctx, kv); err != nil {
		return fmt.Errorf("catalog: restore: %w", err)
	}
	if err := fill(ctx, kv, r); err != nil {
		return fmt.Errorf("catalog: restore: %w", err)
	}
	ops := []Op{{Key: keyRestore, Delete: true}, mark(keyRestored, "", moment(time.Now()))}
	if _, err := kv.Commit(ctx, Txn{Then: ops}); err != nil {
		return fmt.Errorf("catalog: restore: %w", err)
	}
	return nil
}

// kept tells whether a record belongs into another KV, too: a lease does not
// outlive its own, and that of a restore is written by each.
func kept(key string) bool { return kindOf(key) != preGateway && key != keyRestored }

// clearForRestore leaves nothing in kv but the note that a restore is under
// way.
func clearForRestore(ctx context.Context, kv KV) error {
	_, err := kv.Get(ctx, keyRestore)
	unfinished := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for p, err := range kv.List(ctx, "", "") {
		if err != nil {
			return err
		}
		if !unfinished {
			return fmt.Errorf("there is a catalog already (%s); restore into an empty database or another prefix: %w", p.Key, fs.ErrExist)
		}
	}
	// By kind, in small transactions: one of everything could be too big.
	for _, prefix := range prefixes() {
		if _, err := kv.Commit(ctx, Txn{Then: []Op{{Key: prefix, Delete: true, Prefix: true}}}); err != nil {
			return err
		}
	}
	_, err = kv.Commit(ctx, Txn{If: []Cond{{Key: keyRestore}}, Then: []Op{{Key: keyRestore, Value: []byte("{}")}}})
	return err
}

// fill writes the records of a backup, and checks that it is whole. Only then
// is the restore's note taken away.
func fill(ctx context.Context, kv KV, r io.Reader) error {
	b := backupReader{lines: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	if err := b.header(); err != nil {
		return err
	}
	var ops []Op
	size := 0
	flush := func() error {
		_, err := kv.Commit(ctx, Txn{Then: ops})
		ops, size = nil, 0
		return err
	}
	for {
		op, more, err := b.next()
		if err != nil {
			return fmt.Errorf("record %d: %w", b.records+1, err)
		}
		if !more {
			return flush()
		}
		if len(ops) == 100 || size+len(op.Value) > 4*MaxRecord {
			if err := flush(); err != nil {
				return err
			}
		}
		ops, size = append(ops, op), size+len(op.Value)
	}
}

// A backupReader reads the lines of a backup.
type backupReader struct {
	lines   *bufio.Reader
	sum     hash.Hash
	records int
}

func (b *backupReader) line() ([]byte, error) {
	var line []byte
	for {
		part, err := b.lines.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("the backup is cut short: %w", io.ErrUnexpectedEOF)
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > 8*MaxRecord:
			return nil, fmt.Errorf("a line of more than %d bytes: this is no backup: %w", 8*MaxRecord, fs.ErrInvalid)
		}
	}
}

func (b *backupReader) header() error {
	line, err := b.line()
	if err != nil {
		return err
	}
	b.sum.Write(line)
	var h backupHeader
	if err := json.Unmarshal(line, &h); err != nil || h.Backup == 0 {
		return fmt.Errorf("the first line is not that of a backup: %w", fs.ErrInvalid)
	}
	if h.Backup > backupVersion {
		return fmt.Errorf("the backup has version %d, and this program knows versions up to %d: run a newer platterd", h.Backup, backupVersion)
	}
	return nil
}

// next returns the next record as an operation; more is false at the trailer,
// if that is right.
func (b *backupReader) next() (op Op, more bool, err error) {
	line, err := b.line()
	if err != nil {
		return op, false, err
	}
	var l struct {
		backupRecord
		backupTrailer
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return op, false, fmt.Errorf("the backup is damaged: %w", err)
	}
	if l.SHA256 != "" {
		if l.Records != b.records || l.SHA256 != hex.EncodeToString(b.sum.Sum(nil)) {
			return op, false, fmt.Errorf("the backup is damaged: its checksum or its number of records (%d, said to be %d) is wrong: %w", b.records, l.Records, fs.ErrInvalid)
		}
		return op, false, nil
	}
	if l.Key == "" || strings.HasPrefix(l.Key, keyRestore) {
		return op, false, fmt.Errorf("the backup is damaged: a line without a key: %w", fs.ErrInvalid)
	}
	b.sum.Write(line)
	b.records++
	return Op{Key: l.Key, Value: []byte(l.Value)}, true, nil
}
