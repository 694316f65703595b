package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// LoadTLS reads what TLS takes from a folder that is laid out as QEMU wants
// it: ca-cert.pem, the authorities that the server's certificate may be of;
// client-cert.pem and client-key.pem, if they are there, for a server that
// wants to see a certificate. No folder is the system's authorities.
func LoadTLS(dir string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if dir == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca-cert.pem"))
	if err != nil {
		return nil, err
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in it", filepath.Join(dir, "ca-cert.pem"))
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem"))
	if errors.Is(err, fs.ErrNotExist) {
		return conf, nil
	}
	conf.Certificates = []tls.Certificate{pair}
	return conf, err
}
