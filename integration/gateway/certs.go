package gateway

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
	Pool *x509.CertPool

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
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
	der, key := a.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	})
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, a.key, a.pem = cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.Pool.AddCert(cert)
	return a
}

// issue signs a certificate; the first one is signed by itself.
func (a *Authority) issue(t testing.TB, c *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
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
	return der, key
}

// Folder makes a folder with the files that libnbd and QEMU look for:
// ca-cert.pem, and for kind "client" or "server" that kind's certificate and
// key. A server's certificate is good for localhost and the loopback addresses
// as well.
func (a *Authority) Folder(t testing.TB, kind string, s Subject) string {
	t.Helper()
	usage := x509.ExtKeyUsageClientAuth
	c := &x509.Certificate{Subject: pkix.Name{CommonName: s.Name}, DNSNames: s.DNS, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	if kind == "server" {
		usage = x509.ExtKeyUsageServerAuth
		c.DNSNames, c.IPAddresses = append(c.DNSNames, "localhost"), []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	if s.Expired > 0 {
		c.NotAfter = time.Now().Add(-s.Expired)
	}
	c.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	der, key := a.issue(t, c)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"ca-cert.pem":      a.pem,
		kind + "-cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		kind + "-key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ServeTLS is what a gateway needs in its environment to take TLS beside plain
// TCP, or TLS alone with mode "required". Any client may come.
func (a *Authority) ServeTLS(t testing.TB, mode string) []string {
	t.Helper()
	dir := a.Folder(t, "server", Subject{Name: "gateway"})
	return []string{"PLATTER_NBD_TLS=" + mode,
		"PLATTER_NBD_TLS_CERT=" + filepath.Join(dir, "server-cert.pem"), "PLATTER_NBD_TLS_KEY=" + filepath.Join(dir, "server-key.pem")}
}

// Trust is a client's side of TLS that believes a for the host localhost.
func (a *Authority) Trust() *tls.Config { return &tls.Config{RootCAs: a.Pool, ServerName: "localhost"} }
