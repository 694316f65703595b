package etcdkv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-478a8fee/platter/catalog"
)

// explain turns an error of etcd's client into one of the catalog: the only
// place that does. What is not known to be something else means that etcd
// cannot be had right now.
func explain(ctx context.Context, doing string, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errPatience) {
		return fmt.Errorf("etcdkv: %s: %w", doing, cause)
	}
	switch {
	case is(err, rpctypes.ErrGRPCCompacted), is(err, rpctypes.ErrGRPCFutureRev):
		return fmt.Errorf("etcdkv: %s: %w", doing, catalog.ErrCompacted)
	case is(err, rpctypes.ErrGRPCLeaseNotFound):
		return fmt.Errorf("etcdkv: %s: %w", doing, catalog.ErrLeaseGone)
	case is(err, rpctypes.ErrGRPCRequestTooLarge), is(err, rpctypes.ErrGRPCTooManyOps):
		return fmt.Errorf("etcdkv: %s: %w: %w", doing, catalog.ErrTooBig, err)
	case is(err, rpctypes.ErrGRPCPermissionDenied), is(err, rpctypes.ErrGRPCAuthFailed), is(err, rpctypes.ErrGRPCUserEmpty):
		return fmt.Errorf("etcdkv: %s: etcd refuses this user; check [catalog] username and its role: %w: %w", doing, fs.ErrPermission, err)
	case is(err, rpctypes.ErrGRPCNoSpace):
		return fmt.Errorf("etcdkv: %s: etcd's quota is used up; compact and defragment it, then disarm the alarm: %w: %w", doing, catalog.ErrUnavailable, err)
	}
	return fmt.Errorf("etcdkv: %s: %w: %w", doing, catalog.ErrUnavailable, err)
}

// is compares an error, in whatever wrapping the client has put it, with one
// of etcd's own.
func is(err, etcd error) bool {
	want, _ := status.FromError(etcd)
	var own rpctypes.EtcdError
	if errors.As(err, &own) {
		return own.Code() == want.Code() && own.Error() == want.Message()
	}
	have, ok := status.FromError(err)
	return ok && have.Code() != codes.OK && have.Code() == want.Code() && have.Message() == want.Message()
}
