package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// commands are what platterd does besides serving.
func commands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "check-config", Usage: "say every mistake of a configuration at once, with line numbers", ArgsUsage: "FILE",
			Description: "Reads FILE and the PLATTER_... variables as platterd would, and opens nothing.\nExit codes: 0 no mistake, 2 mistakes.",
			Action:      checkConfig,
		},
		{
			Name: "backup", Usage: "write the catalog to a file", ArgsUsage: "FILE",
			Description: "Writes every record of the catalog, as of one moment, to FILE. The gateway may\nrun meanwhile. Image bytes are not in it: they stay in their stores.",
			Action:      backup,
		},
		{
			Name: "restore", Usage: "read the catalog back from a file", ArgsUsage: "FILE",
			Description: "Fills an empty catalog from FILE. With --etcd, or another data directory, the\ncatalog moves to a new place; platterd must not run on it meanwhile.",
			Action:      restore,
		},
		{Name: "rebuild", Usage: "read the catalog back from the stores (not built yet)", Action: notBuilt("rebuild", "restore a backup instead")},
		policyCommand(),
	}
}

func notBuilt(name, instead string) cli.ActionFunc {
	return func(*cli.Context) error {
		return usageError{fmt.Errorf("platterd %s is not built yet in this release; %s", name, instead)}
	}
}

func oneFile(c *cli.Context) (string, error) {
	if c.NArg() != 1 {
		return "", usageError{fmt.Errorf("%s takes one argument, FILE", c.Command.Name)}
	}
	return c.Args().First(), nil
}

func checkConfig(c *cli.Context) error {
	file, err := oneFile(c)
	if err != nil {
		return err
	}
	if _, err := config.Load(config.Sources{File: file, Env: os.Environ()}); err != nil {
		return usageError{fmt.Errorf("%s has mistakes:\n%w", file, err)}
	}
	fmt.Fprintf(c.App.Writer, "%s: no mistake found\n", file)
	return nil
}

// backup writes to a new name first, so that a failure does not cost the
// backup of yesterday.
func backup(c *cli.Context) (err error) {
	file, err := oneFile(c)
	if err != nil {
		return err
	}
	cfg, err := load(c)
	if err != nil {
		return err
	}
	db, err := openRecords(c.Context, cfg, newLogger(cfg, os.Stderr), true)
	if err != nil {
		return err
	}
	defer db.close()
	tmp := file + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer os.Remove(tmp)
	cat, err := catalog.Open(c.Context, db.kv, catalog.Config{})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	err = cat.Backup(c.Context, f)
	if err := errors.Join(err, cat.Close(), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := os.Rename(tmp, file); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	fmt.Fprintf(c.App.Writer, "catalog written to %s\n", file)
	return nil
}

func restore(c *cli.Context) error {
	file, err := oneFile(c)
	if err != nil {
		return err
	}
	cfg, err := load(c)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer f.Close()
	db, err := openRecords(c.Context, cfg, newLogger(cfg, os.Stderr), false)
	if err != nil {
		return err
	}
	defer db.close()
	if err := catalog.Restore(c.Context, db.kv, f); err != nil {
		return fmt.Errorf("restore %s: %w", file, err)
	}
	fmt.Fprintf(c.App.Writer, "catalog restored from %s\n", file)
	return nil
}
