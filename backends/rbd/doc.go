// Package rbd keeps objects, and overlays, as images of a Ceph cluster.
//
// A [Store] is a backends.Store of the plain layout, the one of Glance's own
// driver: an object is an RBD image of exactly its bytes, cut into RADOS
// objects of 8 MiB, with a protected snapshot "snap". Whoever holds
// rbd://FSID/POOL/IMAGE/SNAP can read it, clone it and boot from it without
// us, and what Glance wrote we read. The name of the image is the key; a '/',
// which RBD's own tools cannot address in a name, is a '+' there, which is in
// no key.
//
// An overlay is a writable image: a clone of such a snapshot ([Device]), or,
// as long as there is no snapshot to clone, a bare image over a base that the
// caller has ([Delta]). Each has one writer, whom an exclusive lock, an epoch
// in the image and the cluster's blocklist tell from those before. DESIGN.md
// says how, and what the orders of steps are for.
//
// The package needs librbd and the build tag rbd (and that of the version of
// Ceph for go-ceph, such as pacific); without them Open says so. What moves
// bytes is a small shim over librbd's asynchronous calls (shim.h); what
// administers images is go-ceph.
//
// Locks: that of a handle (closing) before that of the Store (connections);
// none is held while librbd does I/O, but the handle's, shared.
package rbd
