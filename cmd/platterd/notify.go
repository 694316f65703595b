package main

import (
	"net"
	"os"
)

// notify tells systemd what the service does ("READY=1", "STOPPING=1"), as
// sd_notify(3) does. Without systemd it does nothing.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return // systemd will notice by its time-out
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
