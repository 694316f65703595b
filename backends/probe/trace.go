package probe

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
)

// Trace returns r and writes one line of text for every call, once it has
// returned: the name, what was asked, and what came of it unless that is the
// usual. There are no times in it, so that a test can compare it.
func Trace(r block.Reader, name string, out io.Writer) block.Reader {
	return Around(r, trace(name, out))
}

// TraceDevice is Trace for a Device.
func TraceDevice(d block.Device, name string, out io.Writer) block.Device {
	return AroundDevice(d, trace(name, out))
}

func trace(name string, out io.Writer) Hook {
	var mu sync.Mutex
	return func(_ context.Context, c *Call, do func() error) error {
		err := do()
		line := name + ": " + c.String()
		switch {
		case err != nil:
			line += ": " + err.Error()
		case c.Op == Extent:
			line += fmt.Sprintf(" = %d %v", c.Extent.Len, c.Extent.Kind)
		case c.Op == Depth:
			line += fmt.Sprintf(" = %d layer %d", c.Run, c.Layer)
		}
		mu.Lock()
		defer mu.Unlock()
		// A trace that cannot be written is no reason to fail the read.
		_, _ = io.WriteString(out, line+"\n")
		return err
	}
}
