package nbd

import "slices"

// A fields takes an option's data apart. After data that is too short, bad is
// set and everything is zero.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) bytes(n uint32) []byte {
	if uint64(n) > uint64(len(f.rest)) {
		f.bad, f.rest = true, nil
		return nil
	}
	p := f.rest[:n]
	f.rest = f.rest[n:]
	return p
}

func (f *fields) uint16() uint16 {
	if p := f.bytes(2); p != nil {
		return be.Uint16(p)
	}
	return 0
}

func (f *fields) uint32() uint32 {
	if p := f.bytes(4); p != nil {
		return be.Uint32(p)
	}
	return 0
}

func (f *fields) uint64() uint64 {
	if p := f.bytes(8); p != nil {
		return be.Uint64(p)
	}
	return 0
}

func (f *fields) text() string { return string(f.bytes(f.uint32())) }

// infoOrGo answers NBD_OPT_INFO and NBD_OPT_GO, and reports whether data flows
// now.
func (c *conn) infoOrGo(opt uint32, data []byte) (bool, error) {
	f := fields{rest: data}
	name := f.text()
	wanted := make([]uint16, 0, 8)
	for n := f.uint16(); n > 0 && !f.bad; n-- {
		if kind := f.uint16(); !slices.Contains(wanted, kind) && len(wanted) < cap(wanted) && kind <= infoBlockSize {
			wanted = append(wanted, kind)
		}
	}
	if f.bad || len(f.rest) > 0 {
		return false, c.deny(opt, repErrInvalid, "the lengths in the request do not add up to its %d bytes", len(data))
	}
	if err := checkName(name); err != nil {
		return false, c.deny(opt, repErrInvalid, "%v", err)
	}
	if err := c.open(name); err != nil {
		if !c.troubled.Swap(true) {
			c.s.log.Info("nbd: export not opened", c.attr("error", err)...)
		}
		return false, c.deny(opt, c.repErrno(opt, err), "%v", err)
	}
	c.describe(opt, wanted)
	if opt == optGo {
		if slices.Contains(wanted, infoBlockSize) {
			c.minBlock, _, c.maxPayload, _ = c.export.sizes(c.maxPayload) // now they bind both
			c.agreed = true
		}
		c.enter()
	}
	c.answer(opt, repAck, nil)
	return opt == optGo, nil
}

// describe sends what the client wants to know about the open export.
func (c *conn) describe(opt uint32, wanted []uint16) {
	e := &c.export
	p := make([]byte, 14)
	be.PutUint16(p, infoExport)
	be.PutUint64(p[2:], uint64(e.Disk.Size()))
	be.PutUint16(p[10:], c.transmissionFlags(opt == optInfo))
	c.answer(opt, repInfo, p[:12])
	for _, kind := range wanted {
		be.PutUint16(p, kind)
		switch kind {
		case infoName:
			c.answer(opt, repInfo, append(p[:2:2], c.name...))
		case infoDescription:
			if e.Description != "" {
				c.answer(opt, repInfo, append(p[:2:2], clip(e.Description, maxString)...))
			}
		case infoBlockSize:
			least, preferred, most, _ := e.sizes(c.maxPayload) // open has checked them
			be.PutUint32(p[2:], least)
			be.PutUint32(p[6:], preferred)
			be.PutUint32(p[10:], most)
			c.answer(opt, repInfo, p)
		}
	}
}
