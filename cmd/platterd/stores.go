package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/file"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// openStores opens every store of the configuration. This is the only list of
// the kinds of store there are.
func openStores(cfg *config.Config, log *slog.Logger) (map[string]backends.Store, error) {
	stores := map[string]backends.Store{}
	for name, s := range cfg.Stores {
		var err error
		switch s.Type {
		case "file":
			stores[name], err = openFile(cfg.StoreDir(s), cfg)
		default:
			err = fmt.Errorf("stores of type %q are not built yet", s.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", name, err)
		}
		log.Debug("store opened", "store", name, "type", s.Type)
	}
	return stores, nil
}

// openFile opens a file store. It may lie on another disk than the data
// directory, so it has a guard of its own.
func openFile(dir string, cfg *config.Config) (backends.Store, error) {
	err := os.MkdirAll(dir, 0o750)
	var s backends.Store
	if err == nil {
		s, err = file.Open(file.Config{Dir: dir, Guard: localfs.NewGuard(dir, int64(cfg.Limits.Reserve))})
	}
	if err != nil {
		return nil, fmt.Errorf("%w; its dir must be a folder that this user can read and write", err)
	}
	return s, nil
}
