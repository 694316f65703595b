// Package far tests the gateway on stores that are far: every kind of store is
// the real server, and the gateway is the real daemon.
package far
