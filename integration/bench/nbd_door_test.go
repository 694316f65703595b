//go:build integration

package bench

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/nbd/nbdtest"
)

// benchConnect connects, enters an export with GO, and hangs up politely, one
// after the other.
func benchConnect(b *testing.B, goals *table) {
	image := diskFile(b, "raw")
	g := gateway.Start(b, "--log-level", "warn", "--mount", "off")
	kit, _ := nbdkit(b, kitName+" file", "-r", "file", image)
	rivals := append(qemus(b, image, "-r", "-f", "raw"), always(kitName, kit), always(ourName, exported(g, g.Upload(b, "raw", "raw", image))))
	c := newContest("door", "Connect, GO, hang up", goals, rivals...)
	c.race(b, load{name: "connections", unit: perSecond, qemu: 1.3, run: connections})
}

// connections opens one connection after the other.
func connections(t testing.TB, s side) result {
	t.Helper()
	var took []float64
	before, from := cpuTime(t, s.pid), time.Now()
	for time.Since(from) < time.Duration(seconds())*time.Second {
		start := time.Now()
		if err := visit(s); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		took = append(took, time.Since(start).Seconds()*1e6)
	}
	n := float64(len(took))
	return result{rate: n / time.Since(from).Seconds(), cpu: float64((cpuTime(t, s.pid) - before).Microseconds()) / n, p99: quantile(took, 0.99)}
}

// visit is one connection. It is not nbdtest's, which would take longer than
// the server.
func visit(s side) error {
	nc, err := net.Dial("unix", s.socket)
	if err != nil {
		return err
	}
	defer nc.Close()
	var buf [512]byte
	if _, err := io.ReadFull(nc, buf[:18]); err != nil {
		return err
	}
	be := binary.BigEndian
	p := be.AppendUint32(buf[:0], nbdtest.FixedNewstyle|nbdtest.NoZeroes)
	p = append(p, "IHAVEOPT"...)
	p = be.AppendUint32(p, nbdtest.OptGo)
	p = be.AppendUint32(p, uint32(4+len(s.export)+2))
	p = be.AppendUint32(p, uint32(len(s.export)))
	p = append(append(p, s.export...), 0, 0)
	if _, err := nc.Write(p); err != nil {
		return err
	}
	for {
		if _, err := io.ReadFull(nc, buf[:20]); err != nil {
			return err
		}
		kind, n := be.Uint32(buf[12:]), be.Uint32(buf[16:])
		if kind >= 1<<31 || n > uint32(len(buf)) {
			return fmt.Errorf("GO was answered with %#x, %d bytes", kind, n)
		}
		if _, err := io.ReadFull(nc, buf[:n]); err != nil {
			return err
		}
		if kind == nbdtest.RepAck {
			break
		}
	}
	p = be.AppendUint32(buf[:0], 0x25609513)
	p = be.AppendUint32(p, nbdtest.CmdDisc)
	p = append(p, make([]byte, 20)...)
	if _, err := nc.Write(p); err != nil {
		return err
	}
	_, err = nc.Read(buf[:]) // the server hangs up too
	if err != io.EOF {
		return fmt.Errorf("after DISC: %v", err)
	}
	return nil
}

// benchTLS reads a raw image by nbdcopy in pieces of 1 MiB over one connection
// with TLS. fio cannot be told where the certificates are.
func benchTLS(b *testing.B, goals *table) {
	image, certs := diskFile(b, "raw"), certificates(b)
	g := gateway.Start(b, "--log-level", "warn", "--mount", "off", "PLATTER_NBD_TLS=optional", "PLATTER_NBD_TLS_MIN=1.3",
		"PLATTER_NBD_TLS_CERT="+filepath.Join(certs, "server-cert.pem"), "PLATTER_NBD_TLS_KEY="+filepath.Join(certs, "server-key.pem"))
	// The export of ours is read-only; qemu-nbd, too, then allows several
	// connections, of which nbdcopy is told to use one.
	rivals := append(qemus(b, image, "-r", "-f", "raw", "--object", "tls-creds-x509,id=t,endpoint=server,verify-peer=no,dir="+certs, "--tls-creds", "t"),
		always(ourName, exported(g, g.Upload(b, "raw", "raw", image))))
	c := newContest("TLS 1.3", "A raw image, read over TLS 1.3", goals, rivals...)
	c.race(b, load{name: "1-MiB-in-order", unit: mibPerSecond, qemu: 1.5, run: func(t testing.TB, s side) result {
		s.uri = strings.Replace(s.uri, "nbd+unix:", "nbds+unix:", 1) + "&tls-certificates=" + certs
		return copied(t, s, "--connections=1", "--requests=4", "--request-size=1048576")
	}})
}

// certificates makes a folder with an authority, a server's certificate that it
// signed, and the keys, with the names that qemu and libnbd look for.
func certificates(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	issue := func(cert, parent *x509.Certificate, signer *ecdsa.PrivateKey) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		if signer == nil {
			signer = key
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, parent, &key.PublicKey, signer)
		if err != nil {
			b.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			b.Fatal(err)
		}
		name := cert.Subject.CommonName
		write(name+"-cert.pem", "CERTIFICATE", der)
		write(name+"-key.pem", "PRIVATE KEY", keyDER)
		return key
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	signer := issue(ca, ca, nil)
	issue(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotBefore: from, NotAfter: to,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, ca, signer)
	return dir
}

// benchIdle measures what is held for exports that are open, and for
// connections that wait. Memory that the process has, and does not use, would
// hide it: so what the heap and the stacks grow by counts as well as the
// resident set, whichever is more.
func benchIdle(b *testing.B) {
	const exports, connections = 200, 500
	t := tables.table("Resident memory of what is idle, KiB each", "what", "resident set", "heap and stacks", "aim", "")
	small := filepath.Join(b.TempDir(), "small.qcow2")
	tool(b, "qemu-img", "create", "-q", "-f", "qcow2", small, "10G")
	g := gateway.Start(b, "--log-level", "warn", "--mount", "off", "PLATTER_NBD_MAX_PER_CLIENT=1024")
	var ids []string
	for i := range exports {
		ids = append(ids, g.Upload(b, fmt.Sprint("idle", i), "qcow2", small))
	}
	for b.Loop() {
		reach(b, g, ids[:1], 2) // what is made once is not counted
		measure := func(what string, names []string, n int, aim float64) {
			rss, heap := footprint(b, g)
			list := reach(b, g, names, n)
			rss2, heap2 := footprint(b, g)
			perRSS, perHeap := float64(rss2-rss)/float64(n), float64(heap2-heap)/float64(n)
			t.row(what, figure(perRSS), figure(perHeap), "≤ "+figure(aim), verdict(max(perRSS, perHeap), aim, false))
			b.ReportMetric(max(perRSS, perHeap), "KiB/"+strings.Fields(what)[0])
			for _, c := range list {
				if err := c.Disconnect(); err != nil {
					b.Fatal(err)
				}
			}
		}
		measure("connection to an open export", ids[:1], connections, 32)
		measure("export, with its connection", ids, exports, 64)
	}
	b.Log("\n" + t.String())
}

// reach opens n connections to the exports called names in turn, and reads a
// little over each.
func reach(b *testing.B, g *gateway.Gateway, names []string, n int) (list []*nbdtest.Client) {
	b.Helper()
	for i := range n {
		c, err := nbdtest.Open("unix", g.Socket, names[i%len(names)])
		if err == nil {
			_, err = c.Read(0, 64<<10, 0)
		}
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

// footprint returns the resident set of a gateway, and what its heap and its
// stacks take, in KiB, once it has collected its garbage.
func footprint(b *testing.B, g *gateway.Gateway) (rss, heap int) {
	b.Helper()
	var profile []byte
	for range 3 { // pools let go what two collections did not see used
		resp, err := http.Get(g.Debug + "/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			b.Fatal(err)
		}
		profile, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
	}
	for _, name := range []string{"HeapInuse", "Stack"} {
		found := regexp.MustCompile(`(?m)^# ` + name + ` = (\d+)`).FindSubmatch(profile)
		if found == nil {
			b.Fatalf("no %s in the profile of the heap", name)
		}
		n, err := strconv.Atoi(string(found[1]))
		if err != nil {
			b.Fatal(err)
		}
		heap += n >> 10
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.PID()))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("VmRSS:"))
	if rss, err = strconv.Atoi(strings.Fields(string(rest))[0]); err != nil {
		b.Fatal(err)
	}
	return rss, heap
}
