// Package nbd serves block devices over the NBD protocol.
package nbd
