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
// most [MaxRecord] bytes, or [MaxValue] where it keeps [MaxData] bytes of
// somebody else's:
//
//	meta/schema                      the version of this layout, the catalog's identity
//	img/IMAGE                        an image: the record, one key, one compare-and-set
//	dead/IMAGE                       an image was here; its id stays taken for ever
//	mem/IMAGE/PROJECT                an image shared with a project
//	upl/IMAGE                        the one upload that may be filling the image
//	trace/IMAGE                      what the first readers of the image read
//	md/NAMESPACE                     metadata definitions, with all in them
//	mdtype/TYPE                      a type of resource that some were for
//	par/IMAGE/STORE                  the image's disk as an object that overlays are clones of
//	ovl/OVERLAY                      an overlay, its owner and epoch
//	head/OVERLAY                     what the overlay's owner has committed; none for files
//	dirty/OVERLAY                    the head says that the owner's journal is needed
//	att/ATTACHMENT                   an attachment
//	hold/OVERLAY                     the attachment that may write to the overlay
//	ref/image/IMAGE/KIND/ID          why the image cannot be deleted
//	ref/overlay/OVERLAY/KIND/ID      why the overlay cannot be deleted
//	task/TASK                        a task
//	gc/TIME/ID                       objects that nobody needs any more
//	gw/GATEWAY                       a gateway that runs; on its lease, and in no backup
//	meta/restored                    when a backup was restored last: epochs go on from there
//
// # What is atomic
//
// Every change is one transaction (only a delete of an overlay with thousands
// of objects queues most of them before): the keys it was decided on are compared,
// the keys it changes are written, all or nothing. A change decided on old
// data fails its comparison, reads again and decides again, a few times, then
// it is [ErrConflict]. Writers of one record inside one process queue up
// first, since losing the race is what costs. A delete compares the whole
// prefix of the object's references with "empty" in the transaction itself,
// so that nothing in use can be deleted, whoever else is writing.
//
// # One writer
//
// An overlay in a shared store has one owner at a time, in an epoch that is
// never used twice:
//
//	take      if ovl, head and the lease of the taker are as they were read, and
//	          the owner before has no lease: ovl and head get epoch + 1
//	commit    if head is as it was read, in the committer's epoch: the new head,
//	          and what it does not need any more into gc
//	release   if ovl and head are as they were read, and not dirty: no owner, and
//	          epoch + 1, so that the old one is over
//
// All of them write the head, so of two at the same time one fails, reads
// again, and sees what the other did. Nothing rests on a clock here. Leases
// only say when an owner may be taken for gone: it has stopped a quarter of
// the lease's time before, by its own clock, unless it was asleep; and if it
// was, or if any clock is wrong, its commits fail. To commit again what is
// committed is no error, so an answer that was lost does no harm.
//
// Objects that a head no longer needs are removed after twice a lease's time,
// counted by who removes them from when it first saw them in the queue:
// readers of the head before have gone by then.
//
// A journal that holds what the head lacks (dirty) belongs to one gateway.
// Another one takes the overlay only if the caller accepts the loss in so many
// words; then HeldSince grows, and a journal of an epoch before that is set
// aside for good, and named in the record.
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
