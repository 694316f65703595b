// Package takeover restarts gateways, and lets new processes take the place of
// running ones, while clients work: no client may see an error.
package takeover
