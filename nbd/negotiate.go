package nbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"
)

// negotiate greets the client and answers its options until data may flow. It
// reports false if the client ended it in good order.
func (c *conn) negotiate() (bool, error) {
	if err := c.greet(); err != nil {
		return false, err
	}
	for {
		head, err := c.await(optionSize)
		if err != nil {
			return false, err
		}
		magic, opt, n := be.Uint64(head), be.Uint32(head[8:]), be.Uint32(head[12:])
		c.in.skip(optionSize)
		if magic != magicOption {
			return false, fmt.Errorf("%w: an option began with %#x", errProtocol, magic)
		}
		data, err := c.optionData(opt, n)
		if err != nil {
			return false, err
		}
		if data == nil {
			continue
		}
		over, entered, err := c.option(opt, data)
		if over || err != nil {
			c.flush()
			c.out.settle()
			if over && !entered {
				c.linger()
			}
			return entered, err
		}
	}
}

// greet exchanges the first words.
func (c *conn) greet() error {
	p := c.put(18)
	be.PutUint64(p, magicInit)
	be.PutUint64(p[8:], magicOption)
	be.PutUint16(p[16:], flagFixedNewstyle|flagNoZeroes)
	p, err := c.await(4)
	if err != nil {
		return err
	}
	flags := be.Uint32(p)
	c.in.skip(4)
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("%w: client flags %#x were not offered", errProtocol, flags)
	}
	c.fixed, c.noZeroes = flags&flagFixedNewstyle != 0, flags&flagNoZeroes != 0
	return nil
}

// optionData returns the option's data, valid until the next read. It is nil
// if there is too much, which has then been refused.
func (c *conn) optionData(opt, n uint32) ([]byte, error) {
	if n <= maxOption {
		data, err := c.await(int(n))
		if err != nil {
			return nil, err
		}
		c.in.skip(int(n))
		return data[:n:n], nil
	}
	if opt == optExportName || n > maxSkip {
		return nil, fmt.Errorf("%w: option %d of %d bytes", errProtocol, opt, n)
	}
	c.flush()
	if _, err := c.in.discard(uint64(n)); err != nil {
		return nil, err
	}
	if c.mustTLS() && opt != optStartTLS {
		return nil, c.refuseBeforeTLS(opt)
	}
	return nil, c.deny(opt, repErrTooBig, "option %d has %d bytes of data; the limit is %d", opt, n, maxOption)
}

// option answers one option. over says that negotiation ends with it, and
// entered that data flows now.
func (c *conn) option(opt uint32, data []byte) (over, entered bool, err error) {
	if c.draining.Load() && opt != optAbort {
		if opt == optExportName {
			return true, false, errDrained
		}
		return true, false, c.deny(opt, repErrShutdown, "the server is shutting down; connect again later")
	}
	if c.mustTLS() && opt != optStartTLS && opt != optAbort {
		return false, false, c.refuseBeforeTLS(opt)
	}
	if len(data) > 0 && (opt == optList || opt == optStartTLS || opt == optStructuredReply || opt == optExtendedHeaders) {
		return false, false, c.deny(opt, repErrInvalid, "option %d takes no data, but came with %d bytes", opt, len(data))
	}
	switch opt {
	case optExportName:
		err = c.exportName(string(data))
		return true, err == nil, err
	case optAbort:
		c.answer(opt, repAck, nil)
		return true, false, nil
	case optInfo, optGo:
		entered, err = c.infoOrGo(opt, data)
		return entered, entered, err
	case optList:
		err = c.list()
	case optStructuredReply:
		if c.headers == headersExtended {
			err = c.deny(opt, repErrExtended, "extended headers are agreed on, which structured replies cannot replace")
			break
		}
		c.headers = headersStructured
		c.answer(opt, repAck, nil)
	case optExtendedHeaders:
		c.headers = headersExtended
		c.answer(opt, repAck, nil)
	case optListMetaContext, optSetMetaContext:
		err = c.metaContext(opt, data)
	case optStartTLS:
		err = c.startTLS()
	default:
		err = c.deny(opt, repErrUnsup, "option %d is not known to this server", opt)
	}
	return false, false, err
}

// put makes room for n bytes of a reply, which wait in the batch for the next
// read or for enough of them.
func (c *conn) put(n int) []byte {
	if c.batch != nil && c.batch.room() < n {
		c.flush()
	}
	if c.batch == nil {
		c.batch = c.s.pools.get(max(n, 1<<smallClass))
	}
	return c.batch.grow(n)
}

// answer sends a reply to an option.
func (c *conn) answer(opt, kind uint32, data []byte) {
	p := c.put(20 + len(data))
	be.PutUint64(p, magicOptReply)
	be.PutUint32(p[8:], opt)
	be.PutUint32(p[12:], kind)
	be.PutUint32(p[16:], uint32(len(data)))
	copy(p[20:], data)
}

// deny sends a reply that refuses an option. The error is always nil: the
// client may try something else.
func (c *conn) deny(opt uint32, kind repError, format string, args ...any) error {
	c.answer(opt, uint32(kind), []byte(clip(fmt.Sprintf(format, args...), maxString)))
	return nil
}

// list answers NBD_OPT_LIST.
func (c *conn) list() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked("list the exports", p)
		}
	}()
	for info, err := range c.s.cfg.Exports.List(c.ctx, c.client) {
		if errors.Is(err, fs.ErrPermission) {
			return c.deny(optList, repErrPolicy, "you may not list the exports: %v", err)
		}
		if err != nil {
			if !c.troubled.Swap(true) {
				c.s.log.Error("nbd: listing the exports failed", c.attr("error", err)...)
			}
			return c.deny(optList, c.repErrno(optList, err), "listing the exports failed: %v", err)
		}
		if context.Cause(c.ctx) != nil {
			return context.Cause(c.ctx)
		}
		if checkName(info.Name) != nil {
			continue // no client could ask for it
		}
		text := clip(info.Description, maxString)
		data := make([]byte, 4, 4+len(info.Name)+len(text))
		be.PutUint32(data, uint32(len(info.Name)))
		c.answer(optList, repServer, append(append(data, info.Name...), text...))
	}
	c.answer(optList, repAck, nil)
	return nil
}

// exportName answers NBD_OPT_EXPORT_NAME, which can only succeed or end the
// connection.
func (c *conn) exportName(name string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	if c.headers == headersExtended {
		return fmt.Errorf("%w: option EXPORT_NAME after extended headers were agreed on", errProtocol)
	}
	if err := c.open(name); err != nil {
		return fmt.Errorf("open the export: %w", err)
	}
	c.enter()
	n := 134
	if c.noZeroes {
		n = 10
	}
	p := c.put(n)
	clear(p)
	be.PutUint64(p, uint64(c.size))
	be.PutUint16(p[8:], c.flags)
	return nil
}

// checkName says what is wrong with the name of an export.
func checkName(name string) error {
	switch {
	case len(name) > maxString:
		return fmt.Errorf("an export name of %d bytes; the limit is %d", len(name), maxString)
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return errors.New("an export name that is not UTF-8 text")
	}
	return nil
}
