// Package http tests the store of web servers against real ones: Go's file
// server and a public container of OpenStack Swift, which give ranges, and
// Python's http.server, which does not.
package http
