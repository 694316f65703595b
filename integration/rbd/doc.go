// Package rbd tests the RBD store and its overlays against a Ceph cluster that
// it starts. Its tests need the build tags integration and rbd, and that of
// the release of Ceph (such as pacific).
package rbd
