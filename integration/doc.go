// Package integration tests the gateway with the real programs around it:
// Glance's clients, QEMU's tools, libnbd's, etcd, a booting guest. Its tests
// carry the build tag integration; "make test" runs them, and there a missing
// program is a failure. Those that need several of our packages and no other
// program carry no tag. The packages beneath start what the tests need.
package integration
