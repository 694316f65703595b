package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

// The layout, which DESIGN.md describes.
const (
	magic    = "PLATTERC"
	version  = 1
	headSize = 4096 // of the index, before its descriptors
	descSize = 128
	sumsSize = unitGrains * 8
	spread   = 8 // data files: some file systems lock a file for a write
	maxID    = 1024
	idHead   = 24 // of an entry of the list of objects, before the id
)

// files are the cache's open files.
type files struct {
	fsys                 localfs.FS
	dir                  string
	index, sums, objects localfs.File
	data                 [spread]localfs.File
	listEnd              int64 // of what counts in objects; guarded by Cache.mu
}

// openFiles opens the files in dir, empty ones if there are none that we can
// read.
func openFiles(fsys localfs.FS, dir string) (*files, error) {
	if err := localfs.MkdirAll(fsys, dir); err != nil {
		return nil, err
	}
	f := &files{fsys: fsys, dir: dir}
	if err := f.open(os.O_RDWR | os.O_CREATE); err != nil {
		return nil, errors.Join(err, f.close())
	}
	err := f.ours()
	if err == nil {
		return f, nil
	}
	if errors.Is(err, errForeign) {
		err = f.reset()
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

func (f *files) open(flag int) (err error) {
	open := func(name string) localfs.File {
		var file localfs.File
		if err == nil {
			file, err = f.fsys.Open(filepath.Join(f.dir, name), flag, 0o600)
		}
		return file
	}
	if f.index = open("index"); err != nil {
		return err
	}
	// One process at a time: the lock is that of the index.
	if err := localfs.LockImage(f.index); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("lock %s: %w", filepath.Join(f.dir, "index"), err)
	}
	f.sums, f.objects = open("sums"), open("objects")
	for i := range f.data {
		f.data[i] = open(fmt.Sprintf("data.%d", i))
	}
	return err
}

// all returns the files that are open.
func (f *files) all() []localfs.File {
	var all []localfs.File
	for _, file := range append([]localfs.File{f.sums, f.objects, f.index}, f.data[:]...) {
		if file != nil {
			all = append(all, file)
		}
	}
	return all
}

func (f *files) close() error {
	var errs []error
	for _, file := range f.all() {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}

// errForeign is the error of an index that is new, of another version or not
// ours at all.
var errForeign = errors.New("no index of this version")

func head() []byte {
	b := make([]byte, headSize)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], version)
	binary.LittleEndian.PutUint32(b[12:], grainSize)
	binary.LittleEndian.PutUint32(b[16:], unitSize)
	binary.LittleEndian.PutUint32(b[20:], spread)
	binary.LittleEndian.PutUint32(b[24:], crc(b[:24]))
	return b
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func (f *files) ours() error {
	b := make([]byte, headSize)
	if err := readFull(f.index, b, 0); err != nil {
		return err
	}
	if string(b) != string(head()) {
		return errForeign
	}
	return nil
}

// reset empties the files. The head is written last: without it, all is
// emptied again. It is the only thing that is ever synced.
func (f *files) reset() error {
	for _, file := range f.all() {
		if err := file.Truncate(0); err != nil {
			return err
		}
	}
	if _, err := f.index.WriteAt(head(), 0); err != nil {
		return err
	}
	if err := f.index.Sync(); err != nil {
		return err
	}
	return f.fsys.SyncDir(f.dir)
}

// readFull reads len(p) bytes; what is past the end of the file is zeros.
func readFull(file localfs.File, p []byte, off int64) error {
	n, err := file.ReadAt(p, off)
	if n == len(p) || err == io.EOF {
		clear(p[n:])
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (f *files) at(slot int64) (localfs.File, int64) {
	return f.data[slot%spread], slot / spread * unitSize
}

// readData reads from a unit's place, in bytes from its beginning.
func (f *files) readData(slot int64, p []byte, in int64) error {
	file, off := f.at(slot)
	return readFull(file, p, off+in)
}

func (f *files) writeData(slot int64, p []byte, in int64) error {
	file, off := f.at(slot)
	_, err := file.WriteAt(p, off+in)
	return err
}

// punch frees what is in a unit's place, in bytes from its beginning.
func (f *files) punch(slot, in, n int64) error {
	file, off := f.at(slot)
	return localfs.Punch(file, off+in, n)
}

// hollow reports whether there is nothing in a place.
func (f *files) hollow(slot int64) bool {
	file, off := f.at(slot)
	size, err := localfs.Size(file)
	if err != nil || off >= size {
		return err == nil
	}
	there := min(unitSize, size-off)
	n, hole, err := localfs.Run(file, off, there)
	return err == nil && hole && n == there
}

func (f *files) readSums(slot int64, p []byte) error {
	return readFull(f.sums, p, slot*sumsSize)
}

// writeSums writes digests of the grains from grain on.
func (f *files) writeSums(slot int64, grain int, values []uint64) error {
	b := make([]byte, 0, sumsSize)
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	_, err := f.sums.WriteAt(b, slot*sumsSize+int64(grain)*8)
	return err
}

// A desc describes what is in one place.
type desc struct {
	hash            [16]byte // of the object's id
	n               int64    // unit of the object
	stamp           int64
	present, pinned [unitGrains / 64]uint64
	main            bool
	uses            uint8
}

func (d *desc) append(b []byte) []byte {
	start := len(b)
	b = append(b, d.hash[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(d.n))
	b = binary.LittleEndian.AppendUint64(b, uint64(d.stamp))
	for _, w := range append(d.present[:], d.pinned[:]...) {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	flags := uint64(d.uses)
	if d.main {
		flags |= 1 << 8
	}
	b = binary.LittleEndian.AppendUint64(b, flags)
	b = append(b, make([]byte, descSize-4-(len(b)-start))...)
	return binary.LittleEndian.AppendUint32(b, crc(b[start:]))
}

// parse reads a descriptor. One that is not whole describes nothing.
func (d *desc) parse(b []byte) bool {
	if crc(b[:descSize-4]) != binary.LittleEndian.Uint32(b[descSize-4:]) {
		return false
	}
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(b[16+8*i:]) }
	copy(d.hash[:], b)
	d.n, d.stamp = int64(word(0)), int64(word(1))
	d.present, d.pinned = [2]uint64{word(2), word(3)}, [2]uint64{word(4), word(5)}
	d.uses, d.main = uint8(word(6))&0xff, word(6)>>8&1 != 0
	return d.n >= 0 && d.stamp >= 0
}

func (f *files) writeDesc(slot int64, d *desc) error {
	_, err := f.index.WriteAt(d.append(make([]byte, 0, descSize)), headSize+slot*descSize)
	return err
}

// clearDesc says that there is nothing in a place.
func (f *files) clearDesc(slot int64) error {
	_, err := f.index.WriteAt(make([]byte, descSize), headSize+slot*descSize)
	return err
}
