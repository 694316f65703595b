package nbd

import (
	"errors"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
)

// open makes the export called name the one that is open. It stays so for
// options that follow: what INFO told is what GO gives.
func (c *conn) open(name string) error {
	if c.export.Disk != nil && c.name == name {
		return nil
	}
	c.closeExport()
	e, err := c.ask(name)
	if err != nil {
		return err
	}
	c.name, c.export = name, e
	if e.Disk == nil {
		err = errors.New("the export has no disk; this is a bug of the server")
	} else {
		_, _, _, err = e.sizes(c.maxPayload)
	}
	if err != nil {
		c.closeExport()
	}
	return err
}

// ask asks Exports for an export. A panic there is an error.
func (c *conn) ask(name string) (e Export, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked("open an export", p)
		}
	}()
	c.asking.Store(true)
	defer c.asking.Store(false)
	start := time.Now()
	if c.asked++; c.asked <= maxAsked {
		defer func() { // the time was ours, not the client's
			if took := time.Since(start); took > time.Millisecond {
				c.extend(took)
			}
		}()
	}
	return c.s.cfg.Exports.Open(c.ctx, c.client, name)
}

// closeExport closes what is open, if anything is.
func (c *conn) closeExport() error {
	e := c.export
	c.export = Export{}
	if e.Close == nil {
		return nil
	}
	err := e.Close()
	if err != nil {
		c.s.log.Error("nbd: closing the export failed", c.attr("error", err)...)
	}
	return err
}

// enter begins to serve what is open.
func (c *conn) enter() {
	if !c.contextsHold() {
		c.contexts = nil
	}
	c.renew()
	c.troubled.Store(false) // that an export asked for before was not there is another matter
	c.dev, _ = c.export.Disk.(block.Device)
	c.size = c.export.Disk.Size()
	c.flags = c.transmissionFlags(false)
	c.writable.Store(c.dev != nil)
	c.portable.Store(c.secure == nil && !c.export.Transient)
	label := c.export.Label // a copy: info reads it while the export is closed
	c.label.Store(&label)
	if o := c.s.cfg.Observer; o != nil {
		c.meter = o.Connected(c.info())
	}
}

// contextsHold reports whether contexts were chosen for the open export.
func (c *conn) contextsHold() bool {
	return len(c.contexts) > 0 && c.metaExport == c.name && c.headers != headersSimple
}

// transmissionFlags tells the client what the open export can do; asked says
// that it has only asked about it and may choose contexts yet.
func (c *conn) transmissionFlags(asked bool) uint16 {
	f := uint16(flagHasFlags | flagSendFlush | flagSendFUA | flagSendCache)
	if _, ok := c.export.Disk.(block.Device); ok {
		f |= flagSendTrim | flagSendWriteZeroes | flagSendFastZero
	} else {
		f |= flagReadOnly
	}
	if c.headers != headersSimple {
		f |= flagSendDF
	}
	if c.headers == headersExtended && (asked || c.contextsHold()) {
		f |= flagStatusPayload
	}
	if c.export.MultiConn {
		f |= flagCanMultiConn
	}
	return f
}
