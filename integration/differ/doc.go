// Package differ sends the same requests to a real Glance and to a gateway,
// which ask the same Keystone, and compares the answers.
//
// The requests are conversations: files in testdata, one request a line (see
// step_test.go), and others that are made of tables and of a seeded generator.
// Every difference that may be is in one list, with its reason (known_test.go).
package differ
