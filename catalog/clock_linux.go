package catalog

import (
	"time"

	"golang.org/x/sys/unix"
)

// newClock returns a clock that nobody can set and that goes on while the
// machine sleeps, as the one of the server that counts a lease's time does.
func newClock() func() time.Duration {
	return func() time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
			panic(err) // every Linux that Go runs on has it
		}
		return time.Duration(t.Nano())
	}
}
