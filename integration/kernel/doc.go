// Package kernel tests exports with the kernel's NBD client, in a guest: with
// nbd-client, and with devices that package nbd/attach connects. The gateway is
// restarted while they are in use.
package kernel
