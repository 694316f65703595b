package etcdkv

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-478a8fee/platter/catalog"
)

var _ catalog.Leaser = (*KV)(nil)

// A lease is one of etcd. Nothing renews it by itself: who renews it has to
// know when that was asked for.
type lease struct {
	kv *KV
	id clientv3.LeaseID
}

// Lease begins a lease of whole seconds. Etcd gives at least one and a half
// times its own election timeout.
func (kv *KV) Lease(ctx context.Context, ttl time.Duration) (catalog.Lease, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	resp, err := kv.client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return nil, explain(ctx, "begin a lease", err)
	}
	return &lease{kv, resp.ID}, nil
}

// ID is what etcd knows the lease by.
func (l *lease) ID() int64 { return int64(l.id) }

// Renew asks etcd once.
func (l *lease) Renew(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	resp, err := l.kv.client.KeepAliveOnce(ctx, l.id)
	if err != nil {
		return 0, explain(ctx, "renew a lease", err)
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// Revoke ends the lease.
func (l *lease) Revoke(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	if _, err := l.kv.client.Revoke(ctx, l.id); err != nil {
		if err := explain(ctx, "end a lease", err); !errors.Is(err, catalog.ErrLeaseGone) {
			return err
		}
	}
	return nil
}
