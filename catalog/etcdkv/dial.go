package etcdkv

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A Config says how to reach etcd. Endpoints are required.
type Config struct {
	Endpoints []string     // URLs: http, https, unix
	TLS       *tls.Config  // for https; nil: the system's
	Username  string       // "": none
	Password  string       // of Username
	Logger    *slog.Logger // nil: silent
}

// Dial returns a client for New. It does not wait for etcd, except to log in
// where there is a user; a dead connection is noticed within seconds.
func Dial(cfg Config) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		Username:             cfg.Username,
		Password:             cfg.Password,
		DialTimeout:          patience,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		PermitWithoutStream:  true,
		MaxUnaryRetries:      10,
		Logger:               Zap(cfg.Logger),
	})
	if err != nil {
		return nil, fmt.Errorf("etcdkv: dial %v: %w", cfg.Endpoints, err)
	}
	return client, nil
}
