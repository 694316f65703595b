// Package libnbd is the place of libnbd's Go bindings.
//
// The bindings are no module that a proxy serves: they come with libnbd's
// source. "make deps" unpacks them here from Debian's source package, whose
// signature apt has checked; git ignores them. go.mod points the import path
// libguestfs.org/libnbd at this folder. Nothing outside the build tag libnbd
// imports it, so a bare "go build" needs none of this.
package libnbd
