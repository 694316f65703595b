// Package swift tests the store in a Swift container against real servers:
// OpenStack Swift with its own tempauth and with Keystone, and Ceph's object
// gateway.
package swift
