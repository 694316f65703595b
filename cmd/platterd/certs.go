package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookAgain is how often, at most, the files of certificates are looked at for
// a change.
const lookAgain = time.Second

// certFiles are the PEM files of a door that speaks TLS.
type certFiles struct {
	Cert, Key string
	ClientCA  string // clients must have a certificate of these authorities; "": they need none
}

// certs are the certificates of one door. They are read again when the files
// change. While what lies there is no good, that of before is used on.
type certs struct {
	door   string
	files  certFiles
	least  uint16 // version of TLS
	protos []string
	log    *slog.Logger
	now    func() time.Time

	current atomic.Pointer[tls.Config]
	looked  atomic.Int64 // when, in nanoseconds of the Unix epoch

	mu      sync.Mutex // for reading
	stamp   [3]stamp   // of what was read last, good or not
	trouble error      // with it
}

// A stamp tells one state of a file from another.
type stamp struct {
	changed time.Time
	size    int64
	inode   inodeNumber
	missing bool
}

// openCerts reads the files, which must be good at the start.
func openCerts(door string, files certFiles, least uint16, protos []string, log *slog.Logger) (*certs, error) {
	c := &certs{door: door, files: files, least: least, protos: protos, log: log, now: time.Now}
	cfg, err := c.read()
	if err != nil {
		return nil, fmt.Errorf("the certificates of %s: %w", door, err)
	}
	c.stamp = c.stamps()
	c.current.Store(cfg)
	c.looked.Store(c.now().UnixNano())
	return c, nil
}

// config returns what a server is given: each handshake has the certificates
// of now.
func (c *certs) config() *tls.Config {
	cfg := c.current.Load().Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if last, now := c.looked.Load(), c.now().UnixNano(); now-last >= int64(lookAgain) && c.looked.CompareAndSwap(last, now) {
			c.look(false)
		}
		return c.current.Load(), nil
	}
	return cfg
}

// look reads the files if they have changed, or in any case.
func (c *certs) look(always bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.stamps()
	if now == c.stamp && !always {
		return
	}
	c.stamp = now
	cfg, err := c.read()
	c.trouble = err
	if err != nil {
		c.log.Error("new certificates are no good; those of before are used on", "door", c.door, "err", err)
		return
	}
	c.current.Store(cfg)
	c.log.Info("certificates read again", "door", c.door, "until", until(cfg))
}

// until returns when the certificate ends.
func until(cfg *tls.Config) string {
	if leaf := cfg.Certificates[0].Leaf; leaf != nil {
		return leaf.NotAfter.UTC().Format(time.RFC3339)
	}
	return "unknown"
}

// ailing says what is wrong with the certificates, or "".
func (c *certs) ailing() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trouble != nil {
		return fmt.Sprintf("certificates of %s: the new ones are no good and those of before are used: %v", c.door, c.trouble)
	}
	if leaf := c.current.Load().Certificates[0].Leaf; leaf != nil && c.now().After(leaf.NotAfter) {
		return fmt.Sprintf("certificates of %s: %s has ended at %s: put a new one there", c.door, c.files.Cert, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return ""
}

func (c *certs) stamps() (out [3]stamp) {
	for i, name := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			out[i].missing = true
			continue
		}
		out[i] = stamp{changed: info.ModTime(), size: info.Size(), inode: inode(info)}
	}
	return out
}

// read makes a configuration of what the files hold.
func (c *certs) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s and %s are no certificate in PEM and its key: %w", c.files.Cert, c.files.Key, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: c.least, NextProtos: c.protos}
	if c.files.ClientCA != "" {
		pem, err := os.ReadFile(c.files.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("cannot be read: %w", err)
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", c.files.ClientCA)
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cfg, nil
}
