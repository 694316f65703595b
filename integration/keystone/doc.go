// Package keystone tests a gateway whose users come from a real Keystone, with
// the clients that people use: who is let in to what, what becomes of tokens
// that are revoked, and what goes on while Keystone is away.
package keystone
