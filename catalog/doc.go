// Package catalog knows everything about an image except its bytes.
//
// A [Catalog] stands on a [KV], a small map that is strictly consistent: etcd
// in production (catalog/etcdkv, and catalog/embedded for a server of our
// own), memory in tests (catalog/memkv). The rules about images live here,
// once; a KV knows none of them.
//
// # Records and keys
//
// Every record is one key, encoded as JSON with a version (see record.go), at
// most [MaxRecord] bytes:
//
//	meta/schema                      the version of this layout, the catalog's identity
//	img/IMAGE                        an image: the record, one key, one compare-and-set
//	dead/IMAGE                       an image was here; its id stays taken for ever
//	mem/IMAGE/PROJECT                an image shared with a project
//	upl/IMAGE                        the one upload that may be filling the image
//	ovl/OVERLAY                      an overlay
//	att/ATTACHMENT                   an attachment
//	hold/OVERLAY                     the attachment that may write to the overlay
//	ref/image/IMAGE/KIND/ID          why the image cannot be deleted
//	ref/overlay/OVERLAY/KIND/ID      why the overlay cannot be deleted
//	task/TASK                        a task
//	gc/TIME/ID                       an object that nobody needs any more
//
// # What is atomic
//
// Every change is one transaction: the keys it was decided on are compared,
// the keys it changes are written, all or nothing. A change decided on old
// data fails its comparison, reads again and decides again, a few times, then
// it is [ErrConflict]. Writers of one record inside one process queue up
// first, since losing the race is what costs. A delete compares the whole
// prefix of the object's references with "empty" in the transaction itself,
// so that nothing in use can be deleted, whoever else is writing.
//
// # The status of an image
//
// The table in status.go is the only place that says which status may follow
// which. A change that it does not allow is a [StatusError].
//
// # Reading
//
// Reads are answered from memory, from an index that a watch of the KV keeps
// up to date: B-trees for each sort key, sets of rows for each value that can
// be asked for. What a call of this Catalog changed is in the index before
// the call returns; what other gateways change follows within milliseconds.
// The index outlives the KV's absence: reads go on, [Catalog.Ready] says what
// is wrong, changes are [ErrUnavailable]. When the watch has missed changes
// that the KV has already forgotten, the index is built anew and swapped in;
// until then the old one answers.
//
// # Locks
//
// In this order: the lock of a record (keylock.go), then the index's lock
// (store.go). Nothing waits for the KV while it holds the index's lock.
package catalog
