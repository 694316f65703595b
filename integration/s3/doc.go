// Package s3 tests package backends/s3 against real servers: versitygw, whose
// objects are files, and Ceph's radosgw, which ignores the most.
package s3
