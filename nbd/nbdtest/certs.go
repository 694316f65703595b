package nbdtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority issues certificates for a test.
type Authority struct {
	Pool *x509.CertPool // the authority alone

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// A Subject is who a certificate is for.
type Subject struct {
	Name    string        // common name
	DNS     []string      // names of hosts
	Expired time.Duration // how long ago it ended; 0: it is good for a day
}

// NewAuthority makes an authority with a new key.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{Pool: x509.NewCertPool()}
	a.cert, a.key = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	})
	a.Pool.AddCert(a.cert)
	return a
}

// sign makes a certificate; the first one is signed by itself.
func (a *Authority) sign(t testing.TB, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// Issue makes a certificate for kind "client" or "server". A server's is good
// for localhost and the loopback addresses as well.
func (a *Authority) Issue(t testing.TB, kind string, s Subject) tls.Certificate {
	t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: s.Name}, DNSNames: s.DNS, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	if kind == "server" {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.DNSNames, c.IPAddresses = append(c.DNSNames, "localhost"), []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	if s.Expired > 0 {
		c.NotAfter = time.Now().Add(-s.Expired)
	}
	cert, key := a.sign(t, c)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

// Folder makes a folder with the files that libnbd and QEMU look for:
// ca-cert.pem, and for kind "client" or "server" that kind's certificate and
// key.
func (a *Authority) Folder(t testing.TB, kind string, s Subject) string {
	t.Helper()
	dir, cert := t.TempDir(), a.Issue(t, kind, s)
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca-cert.pem":      {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		kind + "-cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		kind + "-key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Server is what a server on this machine needs; auth says what it asks of
// clients.
func (a *Authority) Server(t testing.TB, auth tls.ClientAuthType) *tls.Config {
	t.Helper()
	return &tls.Config{Certificates: []tls.Certificate{a.Issue(t, "server", Subject{Name: "the server"})}, ClientCAs: a.Pool, ClientAuth: auth}
}

// Client is what a client of that name needs, which believes a for the host
// localhost. Without a name it has no certificate.
func (a *Authority) Client(t testing.TB, name string) *tls.Config {
	t.Helper()
	cfg := &tls.Config{RootCAs: a.Pool, ServerName: "localhost"}
	if name != "" {
		cfg.Certificates = []tls.Certificate{a.Issue(t, "client", Subject{Name: name})}
	}
	return cfg
}
