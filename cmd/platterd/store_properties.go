package main

import "github.com/seed-478a8fee/platter/cmd/platterd/config"

// storeProperties is what administrators are told of a store, under the names
// that Glance has for it: only what is true here too.
func storeProperties(s config.Store) map[string]any {
	switch s.Type {
	case "file":
		return map[string]any{"data_dir": s.Dir}
	case "rbd":
		return map[string]any{"pool": s.Pool}
	case "swift":
		return map[string]any{"container": s.Container}
	}
	return map[string]any{}
}

// shared names the stores in which others may keep objects, too.
func (ps *places) shared() map[string]bool {
	out := map[string]bool{}
	for _, p := range ps.stores {
		out[p.name] = p.cfg.Shared || p.cfg.Far()
	}
	return out
}
