// Package metadefs serves the metadata definitions of the Image API: what
// properties mean that are put on images, volumes, flavors and the like.
//
// A namespace is one record of the catalog, with its resource types,
// properties, objects and tags in it. So a namespace is made with all its parts
// or not at all, a change of a part is one transaction, and whoever deletes or
// renames a namespace takes the parts along. The price is the size of a record
// (catalog.MaxRecord): the largest of the sets that Glance comes with has a
// tenth of it.
//
// Whoever may not see a namespace gets 404 for everything in it; only
// administrators change anything, unless the policy says otherwise.
package metadefs
