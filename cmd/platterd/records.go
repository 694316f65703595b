package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/embedded"
	"github.com/seed-478a8fee/platter/catalog/etcdkv"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// records are the etcd that keeps the catalog: one of our own in the data
// directory, or one that the configuration names. The client code is the same.
type records struct {
	kv     catalog.KV
	client *clientv3.Client // of an etcd outside
	server *embedded.Server // of our own
	died   <-chan error     // delivers what ended our own; nil: never
}

// openRecords opens the etcd of the configuration. With join, one of our own
// that a running gateway holds is used through its socket.
func openRecords(ctx context.Context, cfg *config.Config, log *slog.Logger, join bool) (*records, error) {
	if len(cfg.Catalog.Etcd) > 0 {
		return dialRecords(ctx, cfg, log)
	}
	dir := recordsDir(cfg)
	server, err := embedded.Start(ctx, embedded.Config{Dir: dir, Logger: log})
	if join && errors.Is(err, fs.ErrExist) {
		return joinRecords(cfg, dir, log)
	}
	if err != nil {
		return nil, err
	}
	return &records{kv: etcdkv.New(server.Client(), cfg.Catalog.Prefix), server: server, died: server.Err()}, nil
}

// recordsDir is where an etcd of our own has its data.
func recordsDir(cfg *config.Config) string { return filepath.Join(cfg.DataDir, "etcd") }

// roomForRecords tells whether an etcd of our own would start.
func roomForRecords(cfg *config.Config) error {
	if len(cfg.Catalog.Etcd) > 0 {
		return nil
	}
	return embedded.Room(recordsDir(cfg))
}

// joinRecords uses the embedded etcd of a gateway that runs.
func joinRecords(cfg *config.Config, dir string, log *slog.Logger) (*records, error) {
	client, err := etcdkv.Dial(etcdkv.Config{Endpoints: []string{"unix://" + filepath.Join(dir, "etcd.sock")}, Logger: log})
	if err != nil {
		return nil, err
	}
	return &records{kv: etcdkv.New(client, cfg.Catalog.Prefix), client: client}, nil
}

// dialRecords uses the etcd that the configuration names.
func dialRecords(ctx context.Context, cfg *config.Config, log *slog.Logger) (*records, error) {
	secure, err := clientTLS(cfg.Catalog)
	if err != nil {
		return nil, err
	}
	client, err := etcdkv.Dial(etcdkv.Config{
		Endpoints: cfg.Catalog.Etcd, TLS: secure, Username: cfg.Catalog.Username, Password: cfg.Catalog.Password, Logger: log,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot use the etcd at %s: %w; see --etcd", strings.Join(cfg.Catalog.Etcd, ","), err)
	}
	r := &records{kv: etcdkv.New(client, cfg.Catalog.Prefix), client: client}
	if _, err := r.kv.Get(ctx, "meta/schema"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("the etcd at %s does not answer: %w; see --etcd", strings.Join(cfg.Catalog.Etcd, ","), err), r.close())
	}
	return r, nil
}

// clientTLS reads the certificates for an etcd outside; nil means that the
// endpoints' schemes decide.
func clientTLS(c config.Catalog) (*tls.Config, error) {
	if c.TLSCA == "" && c.TLSCert == "" {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("catalog.tls_ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("catalog.tls_ca: %s holds no PEM certificate", c.TLSCA)
		}
	}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("catalog.tls_cert: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// makeRoom is called before the last changes of a stop, for which an etcd of
// our own has kept room on the disk.
func (r *records) makeRoom() {
	if r.server != nil {
		r.server.MakeRoom()
	}
}

func (r *records) close() error {
	if r.server != nil {
		return r.server.Close()
	}
	return r.client.Close()
}
