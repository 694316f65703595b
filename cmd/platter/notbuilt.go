package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// notBuilt are the verbs that have their names but do not work yet.
func notBuilt() []*cli.Command {
	list := []*cli.Command{
		unbuilt("ls", "list files inside an image"),
		unbuilt("cat", "print a file inside an image"),
		unbuilt("cp", "copy files out of an image"),
		unbuilt("diff", "compare the files of two images"),
	}
	return list
}

// unbuilt is a verb that says that it is not built yet, whatever follows it.
func unbuilt(name, short string) *cli.Command {
	return &cli.Command{
		Name:            name,
		Usage:           short + " (not built yet)",
		Hidden:          true,
		SkipFlagParsing: true,
		Action:          func(c *cli.Context) error { return errNotBuilt(c.Command.HelpName) },
	}
}

func errNotBuilt(what string) error {
	return hint(fmt.Errorf("%s is not built yet", what), "platter --help shows what is")
}
