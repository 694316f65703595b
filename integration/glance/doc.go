// Package glance puts a real Glance beside our stores, on the same pool,
// bucket and container: it serves what we wrote, we open what it wrote, and
// each deletes what the other wrote without a trace.
package glance
