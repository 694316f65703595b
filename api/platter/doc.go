// Package platter serves what a gateway does besides Glance's API, under
// /platter/v1: attachments, overlays and their snapshots, captures, the map
// and the converted export of an image, the live NBD connections, and the
// changes of the catalog as events.
//
// The interface is openapi.json, which is served as well; a test keeps the
// document and the router the same.
//
// # What it stands on
//
// Package api mounts [Server] and has already given the request an id, found
// out who asks, and checked Host and Origin. Records are read from the
// catalog. What moves bytes is asked of [Overlays], [Attachments] and [Disks],
// which the daemon provides: this package has never heard of NBD or of files.
//
// # Who may
//
// What somebody may not see is 404: an image by the rules of the catalog,
// everything else by its owner, and all by the rules get_image, get_overlay
// and get_attachment. What they see but may not do is 403, by the policy; the
// rules platter:… and their defaults are in package policy. To attach an image, or to lay an overlay over it, is to read it, so
// the rule download_image is asked as well.
package platter
