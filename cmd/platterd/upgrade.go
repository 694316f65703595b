package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
)

// startNext starts the program anew, from the same path and with the same
// flags, to take this process's place: after an upgrade of the file it is the
// new release. It finds the configuration as it is now. If it cannot start,
// this process goes on.
func (p *process) startNext() {
	if p.nextRuns.Swap(true) {
		p.log.Warn("a new process was started already and has not taken over yet")
		return
	}
	cmd := exec.Command(p.self, append(slices.Clone(os.Args[1:]), "--takeover")...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if slices.Contains(os.Args[1:], "--takeover") {
		cmd.Args = append([]string{p.self}, os.Args[1:]...)
	}
	if err := cmd.Start(); err != nil {
		p.nextRuns.Store(false)
		p.log.Error("the next process cannot be started; this one goes on", "program", p.self, "err", err)
		return
	}
	p.log.Info("a new process was asked to take over", "process", cmd.Process.Pid)
	// It outlives us, or ends before: then it must be waited for. Nobody waits
	// for the goroutine, which ends with the one or the other process.
	go func() {
		err := cmd.Wait()
		p.nextRuns.Store(false)
		p.log.Error("the process that was to take over has ended; this one goes on", "process", cmd.Process.Pid, "err", err)
	}()
}

// program returns the path that this process was started from, also after the
// file was replaced.
func program() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return strings.TrimSuffix(path, " (deleted)")
}
