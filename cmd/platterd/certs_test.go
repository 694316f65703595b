package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certFolder holds the files of a door and the authority that signs them.
type certFolder struct {
	t     *testing.T
	dir   string
	files certFiles
}

func newCertFolder(t *testing.T) *certFolder {
	dir := t.TempDir()
	f := &certFolder{t: t, dir: dir, files: certFiles{Cert: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "k.pem")}}
	f.put(f.files.Cert, f.files.Key, "one", time.Hour)
	return f
}

// put writes a certificate that signs itself, with its key, as tools do: new
// files that are renamed.
func (f *certFolder) put(cert, key, name string, life time.Duration) {
	f.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		f.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		f.t.Fatal(err)
	}
	der2, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der2}))
	f.write(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (f *certFolder) write(name string, data []byte) {
	f.t.Helper()
	if err := errors.Join(os.WriteFile(name+".new", data, 0o600), os.Rename(name+".new", name)); err != nil {
		f.t.Fatal(err)
	}
}

// shown returns the name in the certificate that a client is shown.
func (f *certFolder) shown(c *certs, client *tls.Config) (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return "", err
	}
	defer b.Close()
	a, err := ln.Accept()
	if err != nil {
		return "", err
	}
	defer a.Close()
	server := tls.Server(a, c.config())
	failed := make(chan error, 1)
	go func() { failed <- server.Handshake() }()
	if client == nil {
		client = &tls.Config{}
	}
	client.InsecureSkipVerify = true
	peer := tls.Client(b, client)
	if err := peer.Handshake(); err != nil {
		return "", err
	}
	if err := <-failed; err != nil {
		return "", err
	}
	return peer.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// TestCertsAreReadAgain: when the files change, handshakes show what is new,
// and while that is no good, what was before; somebody is told.
func TestCertsAreReadAgain(t *testing.T) {
	f := newCertFolder(t)
	var said bytes.Buffer
	c, err := openCerts("the door", f.files, tls.VersionTLS12, nil, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	c.looked.Store(now.UnixNano())
	want := func(name string, ailing ...string) {
		t.Helper()
		if got, err := f.shown(c, nil); got != name || err != nil {
			t.Errorf("clients are shown %q, %v; want %q", got, err, name)
		}
		text := c.ailing()
		if (text == "") != (len(ailing) == 0) {
			t.Errorf("ailing: %q", text)
		}
		for _, part := range ailing {
			if !strings.Contains(text, part) || !strings.Contains(said.String(), "no good") {
				t.Errorf("%q is not in %q, or not in the log: %s", part, text, said.String())
			}
		}
	}
	want("one")
	f.put(f.files.Cert, f.files.Key, "two", time.Hour)
	want("one") // looked at a moment ago
	now = now.Add(lookAgain)
	want("two")
	f.write(f.files.Cert, []byte("no PEM"))
	now = now.Add(lookAgain)
	want("two", "the door", "c.pem")
	os.Remove(f.files.Cert)
	now = now.Add(lookAgain)
	want("two", "no such file")
	f.put(f.files.Cert, f.files.Key, "three", time.Hour)
	c.look(true) // at once
	want("three")
	now = now.Add(2 * time.Hour)
	if text := c.ailing(); !strings.Contains(text, "has ended") {
		t.Errorf("a certificate that has ended: %q", text)
	}
}

// TestClientCerts: with an authority for clients, none comes in without its
// certificate, and an old version of TLS does not.
func TestClientCerts(t *testing.T) {
	f := newCertFolder(t)
	f.files.ClientCA = filepath.Join(f.dir, "client.pem")
	key := filepath.Join(f.dir, "client.key")
	f.put(f.files.ClientCA, key, "client", time.Hour)
	c, err := openCerts("the door", f.files, tls.VersionTLS13, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(f.files.ClientCA, key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.shown(c, &tls.Config{Certificates: []tls.Certificate{pair}}); err != nil {
		t.Error(err)
	}
	if _, err := f.shown(c, nil); err == nil {
		t.Error("a client without a certificate is let in")
	}
	if _, err := f.shown(c, &tls.Config{Certificates: []tls.Certificate{pair}, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
	if _, err := openCerts("the door", certFiles{Cert: f.files.Cert, Key: key}, 0, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), f.files.Cert) {
		t.Errorf("a key of another certificate: %v", err)
	}
}
