//go:build integration

package crashes

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What is here reads a journal as its DESIGN.md describes it, and with none of
// its code.
const (
	page       = 4096
	recordHead = 64
)

// A logFile is a file of a journal's records, as it was at one moment.
type logFile struct {
	name    string
	inode   uint64
	data    []byte
	number  int64
	records []int64 // where its records begin and end, in the file, ascending
}

// A journalState is a journal's folder at one moment.
type journalState struct {
	dir      string
	state    []byte
	fileSize int64
	starts   [2]int64   // of the slots, the older one first; 0: there is none
	newer    int        // which slot is the newer one
	files    []*logFile // by number
	synced   int64      // as far as anything in it tells
	end      int64      // where the last record ends
}

// file returns the file with a number, or nil.
func (j *journalState) file(number int64) *logFile {
	for _, f := range j.files {
		if f.number == number {
			return f
		}
	}
	return nil
}

// sum is the checksum of p with a salt.
func sum(salt, p []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(salt, table), table, p)
}

func number64(p []byte, at int) int64 { return int64(binary.LittleEndian.Uint64(p[at:])) }

// readJournal reads the journal of a gateway's overlay. It must have one.
func readJournal(t *testing.T, data, overlay string) *journalState {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(data, "journals", overlay, "journal-*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("journals of the overlay: %q, %v", dirs, err)
	}
	for { // until no file was renamed or removed meanwhile
		j, err := read(dirs[0])
		if err == nil {
			return j
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func read(dir string) (*journalState, error) {
	j := &journalState{dir: dir}
	var err error
	if j.state, err = os.ReadFile(filepath.Join(dir, "journal")); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, err
	}
	salt := j.state[32:48]
	j.fileSize = number64(j.state, 24)
	j.readSlots(salt)
	j.end = j.starts[1]
	slices.Sort(names)
	for _, name := range names {
		f := &logFile{name: filepath.Base(name)}
		info, err := os.Stat(name)
		if err == nil {
			f.inode = info.Sys().(*syscall.Stat_t).Ino
			f.data, err = os.ReadFile(name)
		}
		if err == nil {
			f.number, err = strconv.ParseInt(strings.TrimSuffix(f.name, ".log"), 16, 64)
		}
		if err != nil {
			return nil, err
		}
		j.files = append(j.files, f)
		j.readRecords(f, salt)
	}
	return j, nil
}

// readSlots finds the two slots of the state file.
func (j *journalState) readSlots(salt []byte) {
	var counts, starts [2]int64
	for i := range 2 {
		s := j.state[page*(1+i):][:sector]
		if string(s[:8]) != "PLTRTRIM" || binary.LittleEndian.Uint32(s[508:]) != sum(salt, s[:508]) {
			continue
		}
		counts[i], starts[i] = number64(s, 8), number64(s, 16)
		j.synced = max(j.synced, number64(s, 24))
	}
	if counts[1] > counts[0] {
		j.newer = 1
	}
	j.starts = [2]int64{starts[1-j.newer], starts[j.newer]}
}

// readRecords finds the records of a file, if it is one of this journal.
func (j *journalState) readRecords(f *logFile, salt []byte) {
	if len(f.data) < page {
		return
	}
	head := f.data[:sector]
	if string(head[:8]) != "PLTRJLOG" || binary.LittleEndian.Uint32(head[508:]) != sum(salt, head[:508]) || number64(head, 24) != f.number {
		return
	}
	j.synced = max(j.synced, number64(head, 40))
	base, own := f.number*j.fileSize, head[48:64]
	f.records = []int64{page}
	for at := int64(page); ; {
		begin := at
		n := j.record(f.data, begin, base, own)
		if n < 0 {
			begin = (at + page - 1) &^ (page - 1)
			n = j.record(f.data, begin, base, own)
		}
		if n < 0 {
			return
		}
		at = begin + (recordHead+n+7)&^7
		f.records = append(f.records, begin, begin+recordHead, at)
		j.end = max(j.end, base+at)
	}
}

// record returns the length of the payload of the record at an offset of a
// file, or -1 if there is none.
func (j *journalState) record(data []byte, at, base int64, salt []byte) int64 {
	if at+recordHead > int64(len(data)) {
		return -1
	}
	h := data[at:][:recordHead]
	if string(h[:4]) != "PREC" || binary.LittleEndian.Uint32(h[60:]) != sum(salt, h[:60]) || number64(h, 16) != base+at {
		return -1
	}
	n := int64(binary.LittleEndian.Uint32(h[8:]))
	if at+recordHead+n > int64(len(data)) || binary.LittleEndian.Uint32(h[12:]) != sum(nil, data[at+recordHead:][:n]) {
		return -1
	}
	j.synced = max(j.synced, number64(h, 48))
	return n
}

// boundaries are the positions from one on at which the end of what a loss of
// power left can lie: of records, of their headers, of pages, and of sectors.
func (j *journalState) boundaries(from int64) []int64 {
	var all []int64
	for _, f := range j.files {
		if len(f.records) == 0 {
			continue
		}
		base := f.number * j.fileSize
		end := min((f.records[len(f.records)-1]+page)&^(page-1), int64(len(f.data)))
		for at := int64(0); at <= end; at += sector {
			all = append(all, base+at)
		}
		for _, at := range f.records {
			all = append(all, base+at)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(all, func(p int64) bool { return p < from })
}

// String tells what the folder holds.
func (j *journalState) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: starts %v, synced %d, ends %d;", filepath.Base(j.dir), j.starts, j.synced, j.end)
	for _, f := range j.files {
		fmt.Fprintf(&b, " %s (%d bytes, %d boundaries of records)", f.name, len(f.data), len(f.records))
	}
	return b.String()
}
