// Package migrate tests how the images of a real Glance come into a gateway.
package migrate
