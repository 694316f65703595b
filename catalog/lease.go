package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Leaser is a KV in which records can die with the process that wrote them.
type Leaser interface {
	// Lease begins a lease that ends when it was not renewed for ttl. The KV
	// may give more, not less.
	Lease(ctx context.Context, ttl time.Duration) (Lease, error)
}

// A Lease is a promise of a KV to keep some records while it is renewed. When
// it ends, all records that were last written with it are deleted, at once.
type Lease interface {
	// ID is what an Op names the lease by.
	ID() int64

	// Renew begins the lease's time anew and returns how long it lasts from
	// the moment at which the KV was asked. A lease that has ended is
	// ErrLeaseGone.
	Renew(ctx context.Context) (ttl time.Duration, err error)

	// Revoke ends the lease. One that has ended is no error.
	Revoke(ctx context.Context) error
}

// ErrLeaseGone is the error of a lease that has ended, and of all that hung
// on it.
var ErrLeaseGone = errors.New("the lease has ended")

// NewLease begins a lease of kv. A KV that is no Leaser is
// errors.ErrUnsupported.
func NewLease(ctx context.Context, kv KV, ttl time.Duration) (Lease, error) {
	if l, ok := kv.(Leaser); ok {
		return l.Lease(ctx, ttl)
	}
	return nil, fmt.Errorf("catalog: this database has no leases: %w", errors.ErrUnsupported)
}
