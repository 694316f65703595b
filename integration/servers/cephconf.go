package servers

import "fmt"

// cephConf is the ceph.conf of the daemons and of every client. Its settings
// are for a quick start and for one replica on one machine.
func cephConf(c *Ceph, cfg CephConfig, fsid string, v2, v1 int) string {
	store := "memstore"
	if cfg.Bluestore {
		store = "bluestore"
	}
	size := cfg.Size
	if size == 0 {
		size = 8 << 30
	}
	return fmt.Sprintf(`[global]
fsid = %[1]s
mon host = [v2:127.0.0.1:%[2]d/0,v1:127.0.0.1:%[3]d/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
mon cluster log file = %[4]s/cluster.log
crash dir = %[4]s/crash
run dir = %[4]s/run
pid file =
log file =
log to stderr = true
err to stderr = true
debug ms = 0/0
debug mon = 0/0
debug osd = 0/0
debug rocksdb = 0/0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon max pg per osd = 1000
%[7]s
[mon]
mon data = %[4]s/mon
admin socket = %[4]s/run/$name.asok
# The default waits gather changes of large clusters; here they are most of a start.
paxos propose interval = 0.05
paxos min wait = 0.01
# The disk of the tests may be fuller than a cluster likes it.
mon data avail warn = 1
mon data avail crit = 0
[osd]
osd data = %[4]s/osd
admin socket = %[4]s/run/$name.asok
osd objectstore = %[5]s
# The quick way out leaves what memstore holds behind.
osd fast shutdown = false
osd class load list = *
osd class default list = *
osd op num shards = 2
osd op num threads per shard = 1
memstore device bytes = %[6]d
bluestore block create = true
bluestore block size = %[6]d
bluestore block db create = false
bluestore block wal create = false
bluestore fsck on mkfs = false
bluestore cache autotune = false
bluestore cache size = 134217728
[client.admin]
keyring = %[4]s/client.admin.keyring
[client.%[8]s]
keyring = %[4]s/client.%[8]s.keyring
[client.rgw]
rgw data = %[4]s/rgw
# Without tcp_nodelay a small answer takes 44 ms.
rgw frontends = beast endpoint=127.0.0.1:%[9]d tcp_nodelay=1
rgw thread pool size = 32
# Clients of Swift are led to where they signed in, which may be a proxy.
rgw swift account in url = true
`, fsid, v2, v1, c.Dir, store, size, cfg.Settings, c.User, c.rgwPort)
}
