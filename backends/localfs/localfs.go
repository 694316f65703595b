// Package localfs is the little of a local file system that durable code
// needs: positioned reads and writes, fsync of files and of folders, rename.
//
// The file store and the overlays on local disk go through an [FS] instead of
// package os so that a test can stand in for the disk: record every write and
// every fsync, and build from the record each state that a loss of power could
// have left (see package localfs/crashfs).
package localfs

import "io/fs"

// An FS opens and names files. Names are paths as package os takes them.
// Errors are those of package os.
type FS interface {
	// Open opens name with flags of package os and, if it creates it, mode.
	Open(name string, flag int, mode fs.FileMode) (File, error)

	// Rename moves a file, replacing what newname was. It lasts once SyncDir
	// of the folders returned.
	Rename(oldname, newname string) error

	// Remove removes a file or an empty folder.
	Remove(name string) error

	// SyncDir makes the names in a folder durable (fsync of the folder).
	SyncDir(name string) error

	// ReadDir lists a folder, sorted by name.
	ReadDir(name string) ([]fs.DirEntry, error)
}

// A File is an open file. Any number of goroutines may use it at once.
type File interface {
	// ReadAt reads as io.ReaderAt does.
	ReadAt(p []byte, off int64) (int, error)

	// WriteAt writes as io.WriterAt does, growing the file if need be.
	WriteAt(p []byte, off int64) (int, error)

	// Truncate sets the file's size in bytes.
	Truncate(size int64) error

	// Sync returns when all that was written is on stable storage
	// (fdatasync).
	Sync() error

	// Close closes the file. It does not sync.
	Close() error
}

// A Puncher is a File that can free the space behind a range.
type Puncher interface {
	// Punch makes [off, off+n) a hole, which reads as zeros. The file keeps
	// its size.
	Punch(off, n int64) error
}

// A Sizer is a File that knows its size.
type Sizer interface {
	// Size returns the file's size in bytes.
	Size() (int64, error)
}
