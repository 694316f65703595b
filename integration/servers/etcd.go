package servers

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/integration/port"
)

// Etcd is a cluster of etcd members.
type Etcd struct {
	Endpoints []string   // URLs for clients, one a member
	Members   []*Process // in the order of Endpoints
}

// StartEtcd starts an etcd cluster of n members, 1 or 3.
func StartEtcd(t TB, n int) *Etcd {
	t.Helper()
	need(t, "etcd")
	dir := tempDir(t, "etcd")
	e := &Etcd{}
	var peers, members []string
	for i := range n {
		e.Endpoints = append(e.Endpoints, fmt.Sprintf("http://127.0.0.1:%d", port.Free(t)))
		peers = append(peers, fmt.Sprintf("http://127.0.0.1:%d", port.Free(t)))
		members = append(members, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i := range n {
		name := fmt.Sprintf("m%d", i)
		line := []string{"etcd", "--name", name, "--data-dir", filepath.Join(dir, name),
			"--listen-client-urls", e.Endpoints[i], "--advertise-client-urls", e.Endpoints[i],
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(members, ","), "--initial-cluster-token", dir, "--logger", "zap", "--log-level", "warn"}
		if n == 1 { // no need to wait for votes
			line = append(line, "--heartbeat-interval", "10", "--election-timeout", "100")
		}
		e.Members = append(e.Members, &Process{Name: "etcd-" + name, line: line, ready: etcdHealthy(e.Endpoints[i])})
	}
	launchAll(t, dir, e.Members...)
	return e
}

// etcdHealthy asks a member whether it knows of a leader.
func etcdHealthy(url string) func() error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	return func() error {
		resp, err := client.Get(url + "/health")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
}
