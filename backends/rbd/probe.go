//go:build rbd

package rbd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rbd"

	"github.com/seed-478a8fee/platter/backends"
)

// Capabilities returns what was found out when the Store was opened.
func (s *Store) Capabilities() []backends.Capability { return slices.Clone(s.caps) }

// probe asks the cluster for what we use if it is there.
func (s *Store) probe(ctx context.Context, c *conn) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := rbd.GetTrashList(c.io); err != nil {
		return fmt.Errorf("list the pool's trash as client.%s: %w", s.cfg.User, explain(err))
	}
	release := s.command(c, "osd get-require-min-compat-client", nil)
	stat, err := c.rados.GetClusterStats()
	if err != nil {
		return explain(err)
	}
	major, minor, patch := rbd.Version()
	s.caps = []backends.Capability{
		{Name: "clone without protection", OK: strings.TrimSpace(release) >= "mimic", Detail: strings.TrimSpace("clients must be " + release)},
		{Name: "usage", OK: stat.Kb > 0, Detail: noManager(stat.Kb)},
		{Name: "librbd", OK: true, Detail: fmt.Sprintf("%d.%d.%d", major, minor, patch)},
	}
	return nil
}

func noManager(kb uint64) string {
	if kb > 0 {
		return ""
	}
	return "no manager daemon reports numbers"
}

// command sends a command to the monitors and returns its output, or "".
func (s *Store) command(c *conn, prefix string, args map[string]any) string {
	out, err := monitor(c, prefix, args)
	if err != nil {
		s.log.Debug("command to the monitors", "prefix", prefix, "error", err)
	}
	return out
}

func monitor(c *conn, prefix string, args map[string]any) (string, error) {
	all := map[string]any{"prefix": prefix}
	for name, value := range args {
		all[name] = value
	}
	line, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	out, status, err := c.rados.MonCommand(line)
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w", prefix, status, explain(err))
	}
	return string(out), nil
}
