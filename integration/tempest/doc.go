// Package tempest runs OpenStack's own tests of an image service, Tempest's,
// against a gateway with a real Keystone. Every one of them has to pass but
// those in a short list with the reason for each (waiting_test.go).
package tempest
