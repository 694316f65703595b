package servers

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/seed-478a8fee/platter/integration/port"
)

// CephConfig says what StartCeph starts.
type CephConfig struct {
	// Bluestore keeps the data in a file, and so over a kill -9 of the OSD.
	// Without it the data are in memory, twice, and end with the OSD.
	Bluestore bool

	// Size of the OSD in bytes; 8 GiB if 0. Space is taken as it is used.
	Size int64

	// RGW starts an object gateway as well, for S3 and Swift.
	RGW bool

	// Settings are further lines for the section [global] of ceph.conf.
	Settings string
}

// Ceph is a cluster of one monitor and one OSD. It has no manager, so it
// counts no pool's usage and enforces no pool's quota.
type Ceph struct {
	Dir  string
	Conf string // path of ceph.conf, which names the keyrings too

	Pool    string // initialized for RBD
	User    string // may do what "profile rbd" allows in Pool; without "client."
	Keyring string // path of the user's keyring

	Mon, OSD *Process
	RGW      *RGW // nil unless asked for

	rgwPort int
}

// RGW is Ceph's object gateway.
type RGW struct {
	S3
	Swift   SwiftAccount
	Process *Process
}

// StartCeph starts a cluster with a pool "images" and a user for a gateway.
func StartCeph(t TB, cfg CephConfig) *Ceph {
	t.Helper()
	need(t, "ceph-mon", "ceph-osd", "ceph", "rbd", "monmaptool")
	dir := tempDir(t, "ceph")
	c := &Ceph{Dir: dir, Conf: filepath.Join(dir, "ceph.conf"), Pool: "images", User: "platter", Keyring: filepath.Join(dir, "client.platter.keyring")}
	mkdir(t, c.path("mon"), c.path("osd"), c.path("rgw"), c.path("run"), c.path("crash"))
	v2, v1, fsid := port.Free(t), port.Free(t), newUUID()
	if cfg.RGW {
		c.rgwPort = port.Free(t)
	}
	write(t, c.Conf, cephConf(c, cfg, fsid, v2, v1))
	keys := c.writeKeys(t)

	address := fmt.Sprintf("[v2:127.0.0.1:%d,v1:127.0.0.1:%d]", v2, v1)
	run(t, nil, "", "monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, c.path("monmap"))
	run(t, nil, "", "ceph-mon", "-c", c.Conf, "--mkfs", "-i", "a", "--monmap", c.path("monmap"), "--keyring", c.path("all.keyring"))
	c.Mon = launch(t, &Process{Name: "ceph-mon", ready: answersTCP(v2), line: []string{"ceph-mon", "-c", c.Conf, "-f", "-i", "a"}}, dir)

	uuid := newUUID()
	secret, _ := json.Marshal(map[string]string{"cephx_secret": keys["osd.0"]})
	run(t, nil, string(secret), "ceph", "-c", c.Conf, "osd", "new", uuid, "-i", "-")
	run(t, nil, "", "ceph-osd", "-c", c.Conf, "-i", "0", "--mkfs", "--osd-uuid", uuid, "--keyring", c.path("osd.0.keyring"))
	c.OSD = launch(t, &Process{Name: "ceph-osd", ready: c.osdActive, line: []string{"ceph-osd", "-c", c.Conf, "-f", "-i", "0", "--keyring", c.path("osd.0.keyring")}}, dir)

	c.Command(t, "ceph", "osd", "pool", "create", c.Pool, "16", "16")
	c.Command(t, "rbd", "pool", "init", c.Pool)
	if cfg.RGW {
		c.startRGW(t)
	}
	return c
}

// path returns a path in the cluster's directory.
func (c *Ceph) path(name string) string { return filepath.Join(c.Dir, name) }

// Command runs one of Ceph's programs (ceph, rbd, rados, radosgw-admin) as the
// cluster's administrator and returns its standard output. A failure ends the
// test.
func (c *Ceph) Command(t TB, program string, args ...string) string {
	t.Helper()
	out, err := c.Try(program, args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// Try is Command for what may fail: the error holds what the program said.
func (c *Ceph) Try(program string, args ...string) (string, error) {
	return try(nil, "", program, append([]string{"-c", c.Conf}, args...)...)
}

// AddPool makes a further pool for RBD, which the user may use as well.
func (c *Ceph) AddPool(t TB, name string) {
	t.Helper()
	c.Command(t, "ceph", "osd", "pool", "create", name, "16", "16")
	c.Command(t, "rbd", "pool", "init", name)
}

// writeKeys makes the keys of all users and writes a keyring for each, and one
// of all for the monitor to begin with.
func (c *Ceph) writeKeys(t TB) map[string]string {
	keys := map[string]string{}
	all := ""
	for _, u := range []struct{ name, caps string }{
		{"mon.", "\tcaps mon = \"allow *\"\n"},
		{"client.admin", "\tcaps mon = \"allow *\"\n\tcaps osd = \"allow *\"\n\tcaps mgr = \"allow *\"\n"},
		{"client." + c.User, "\tcaps mon = \"profile rbd\"\n\tcaps osd = \"profile rbd\"\n\tcaps mgr = \"profile rbd\"\n"},
		{"client.rgw", "\tcaps mon = \"allow rw\"\n\tcaps osd = \"allow rwx\"\n"},
		{"osd.0", ""},
	} {
		key := newCephKey()
		keys[u.name] = key
		ring := fmt.Sprintf("[%s]\n\tkey = %s\n%s", u.name, key, u.caps)
		write(t, c.path(u.name+".keyring"), ring)
		if u.name != "osd.0" { // its key comes with "osd new"
			all += ring
		}
	}
	write(t, c.path("all.keyring"), all)
	return keys
}

// newCephKey makes a secret as Ceph writes it: type (AES), time, length, key.
func newCephKey() string {
	b := binary.LittleEndian.AppendUint16(nil, 1)
	b = binary.LittleEndian.AppendUint32(b, uint32(time.Now().Unix()))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint16(b, 16)
	key := make([]byte, 16)
	rand.Read(key)
	return base64.StdEncoding.EncodeToString(append(b, key...))
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// osdActive asks the OSD, on its socket, whether it serves.
func (c *Ceph) osdActive() error {
	answer, err := adminSocket(c.path("run/osd.0.asok"), "status")
	if err != nil {
		return err
	}
	var status struct{ State string }
	if err := json.Unmarshal(answer, &status); err != nil {
		return err
	}
	if status.State != "active" {
		return fmt.Errorf("the OSD is %s", status.State)
	}
	return nil
}

// adminSocket asks a daemon of Ceph something: JSON and a zero byte there, a
// length of four bytes and JSON back.
func adminSocket(path, command string) ([]byte, error) {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(conn, "{\"prefix\":%q}\x00", command); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 1<<20 {
		return nil, errors.New("an answer longer than 1 MiB")
	}
	answer := make([]byte, n)
	_, err = io.ReadFull(conn, answer)
	return answer, err
}

// startRGW starts the object gateway and makes a user of S3 and one of Swift.
func (c *Ceph) startRGW(t TB) {
	t.Helper()
	need(t, "radosgw", "radosgw-admin")
	url := fmt.Sprintf("http://127.0.0.1:%d", c.rgwPort)
	c.RGW = &RGW{
		S3:    S3{URL: url, AccessKey: "platter", SecretKey: "rgw-secret-of-the-tests", Region: "us-east-1"},
		Swift: SwiftAccount{AuthURL: url + "/auth/v1.0", User: "platter:swift", Key: "rgw-swift-key"},
	}
	c.RGW.Process = launch(t, &Process{Name: "radosgw", ready: answersHTTP(url),
		line: []string{"radosgw", "-c", c.Conf, "-f", "-n", "client.rgw", "--keyring", c.path("client.rgw.keyring")}}, c.Dir)
	c.Command(t, "radosgw-admin", "user", "create", "--uid=platter", "--display-name=platter", "--max-buckets=0",
		"--access-key="+c.RGW.AccessKey, "--secret-key="+c.RGW.SecretKey)
	c.Command(t, "radosgw-admin", "subuser", "create", "--uid=platter", "--subuser="+c.RGW.Swift.User, "--access=full",
		"--key-type=swift", "--secret-key="+c.RGW.Swift.Key)
}
