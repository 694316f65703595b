// Package fusefs shows images as files.
//
// A Tree is read-only:
//
//	by-id/IMAGE_ID/disk.raw       the bytes that a guest sees
//	by-id/IMAGE_ID/native.EXT     the bytes as uploaded, EXT by disk_format
//	by-id/IMAGE_ID/image.json     the record
//	by-name/NAME                  -> ../by-id/IMAGE_ID
//	by-name/NAME~SHORTID          the same, where several images share a name
//	.platter/status               JSON: gateway, revision of the catalog, open files
//
// What it shows comes from a [Library], which its owner provides.
//
// # Sizes and holes
//
// st_size is the size of the disk (or of the native file), st_blocks is what
// is stored of it, and SEEK_HOLE and SEEK_DATA follow the extents of the
// Reader. All three must agree: cp and du look at st_blocks first, and a file
// that claims to be full is copied in full.
//
// # Caches
//
// The bytes of an active image never change, so the kernel may keep entries,
// attributes and pages of it for as long as it likes. Only two things are
// taken back: entries of images that were deleted or renamed, and the
// attributes of a changed record. The owner says so with [Tree.Changed] and
// [Tree.Removed]; neither may be called while a lock is held that a method
// of the Library needs, because the kernel may be inside a lookup of the very
// entry that is to be forgotten. An open file holds its Reader and goes on
// after its image is gone. The record and the status are read uncached.
//
// # Names
//
// In by-name, '/', '%' and control bytes are written as %XX, and so are the
// names "." and ".." and a '~' that would read as the mark of a shared name.
// A name too long for a directory entry is cut and ends in ~IMAGE_ID. Images
// without a name are found by id only.
//
// # Many images
//
// No inode is kept that the kernel does not hold. A directory is streamed in
// order of image id, in batches, and can be continued after any entry it has
// given out. Inode numbers are a hash of the id, the same after a restart.
//
// # Locks
//
// Tree.mu guards the set of open files and is never held while a Library or
// a Reader is called.
package fusefs
