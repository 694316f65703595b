package nbdtest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"unicode/utf8"
)

// A Client is one connection to a server.
type Client struct {
	Conn       net.Conn // the socket, for what no method does
	Size       uint64   // of the export, once it is open
	Flags      uint16   // its transmission flags
	Structured bool     // structured replies were agreed
	Extended   bool     // extended headers were agreed; they win
	Contexts   map[string]uint32

	noZeroes bool
	r        *bufio.Reader
	calls    calls
}

// An OptReply is one reply to an option.
type OptReply struct {
	Opt, Type uint32
	Data      []byte
}

// An OptError is a reply that refuses an option.
type OptError struct {
	Opt, Type uint32
	Text      string
}

// Error says what was refused and why.
func (e *OptError) Error() string {
	return fmt.Sprintf("option %d: error 2^31+%d: %s", e.Opt, e.Type&^(1<<31), e.Text)
}

// An Info is what a server tells of an export.
type Info struct {
	Size                    uint64
	Flags                   uint16
	Name, Description       string
	Minimum, Preferred, Max uint32 // block sizes; zero if not told
}

// An Entry is a line of the list of exports.
type Entry struct{ Name, Description string }

// New returns a client on nc that has said nothing yet.
func New(nc net.Conn) *Client {
	return &Client{Conn: nc, r: bufio.NewReaderSize(nc, 256<<10), Contexts: map[string]uint32{}}
}

// Dial connects and greets.
func Dial(network, addr string) (*Client, error) {
	nc, err := net.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c := New(nc)
	return c, c.Greet(FixedNewstyle | NoZeroes)
}

// Open connects and enters the export called name with all that the server
// offers: structured replies and base:allocation where it has them.
func Open(network, addr, name string) (*Client, error) {
	c, err := Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return c, c.Enter(name)
}

// Enter goes to the export called name with all that the server offers.
func (c *Client) Enter(name string) error {
	if err := c.StructuredReplies(); err != nil {
		return err
	}
	if _, err := c.SetContexts(name, "base:allocation"); err != nil {
		return err
	}
	_, err := c.Go(name, InfoBlockSize)
	return err
}

// EnterExtended goes to the export called name with extended headers and all
// contexts that it has.
func (c *Client) EnterExtended(name string) error {
	if err := c.ExtendedHeaders(); err != nil {
		return err
	}
	all, err := c.ListContexts(name)
	if err != nil {
		return err
	}
	if _, err := c.SetContexts(name, slices.Sorted(maps.Keys(all))...); err != nil {
		return err
	}
	_, err = c.Go(name, InfoBlockSize)
	return err
}

// Greet reads the greeting and answers it with flags.
func (c *Client) Greet(flags uint32) error {
	p, err := c.bytes(18)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if be.Uint64(p) != magicInit || be.Uint64(p[8:]) != magicOption {
		return fmt.Errorf("greeting: wrong magic %x", p[:16])
	}
	if f := be.Uint16(p[16:]); f != FixedNewstyle|NoZeroes {
		return fmt.Errorf("greeting: handshake flags %#x", f)
	}
	c.noZeroes = flags&NoZeroes != 0
	return c.Write(be.AppendUint32(nil, flags))
}

// Write sends bytes as they are.
func (c *Client) Write(p []byte) error {
	_, err := c.Conn.Write(p)
	return err
}

// SendOption sends an option.
func (c *Client) SendOption(opt uint32, data []byte) error {
	return c.Write(append(OptionHeader(opt, uint32(len(data))), data...))
}

// OptionHeader returns the header of an option that says n bytes follow.
func OptionHeader(opt, n uint32) []byte {
	p := be.AppendUint64(nil, magicOption)
	return be.AppendUint32(be.AppendUint32(p, opt), n)
}

// OptReply reads one reply to opt.
func (c *Client) OptReply(opt uint32) (OptReply, error) {
	p, err := c.bytes(20)
	if err != nil {
		return OptReply{}, err
	}
	r := OptReply{Opt: be.Uint32(p[8:]), Type: be.Uint32(p[12:])}
	n := be.Uint32(p[16:])
	switch {
	case be.Uint64(p) != magicOptReply:
		return r, fmt.Errorf("option %d: wrong reply magic %x", opt, p[:8])
	case r.Opt != opt:
		return r, fmt.Errorf("option %d: reply to option %d", opt, r.Opt)
	case n > 8192:
		return r, fmt.Errorf("option %d: reply of %d bytes", opt, n)
	case r.Type == RepAck && n > 0:
		return r, fmt.Errorf("option %d: ACK with %d bytes", opt, n)
	}
	if r.Data, err = c.bytes(int(n)); err != nil {
		return r, err
	}
	if r.Type&(1<<31) != 0 && (n > 4096 || !utf8.Valid(r.Data)) {
		return r, fmt.Errorf("option %d: error text is too long or no UTF-8: %q", opt, r.Data)
	}
	return r, nil
}

// Option sends an option and returns the replies before the ACK. A refusal is
// an *OptError.
func (c *Client) Option(opt uint32, data []byte) ([]OptReply, error) {
	if err := c.SendOption(opt, data); err != nil {
		return nil, err
	}
	var got []OptReply
	for {
		r, err := c.OptReply(opt)
		switch {
		case err != nil:
			return got, err
		case r.Type == RepAck:
			return got, nil
		case r.Type&(1<<31) != 0:
			return got, &OptError{opt, r.Type, string(r.Data)}
		}
		got = append(got, r)
	}
}

// StructuredReplies agrees on structured replies.
func (c *Client) StructuredReplies() error {
	_, err := c.Option(OptStructuredReply, nil)
	c.Structured = c.Structured || err == nil
	return err
}

// ExtendedHeaders agrees on extended headers.
func (c *Client) ExtendedHeaders() error {
	_, err := c.Option(OptExtendedHeaders, nil)
	c.Extended = c.Extended || err == nil
	return err
}

// StartTLS starts TLS. What was agreed on before is forgotten.
func (c *Client) StartTLS(cfg *tls.Config) error {
	if _, err := c.Option(OptStartTLS, nil); err != nil {
		return err
	}
	if n := c.r.Buffered(); n > 0 {
		return fmt.Errorf("%d bytes behind the ACK of STARTTLS", n)
	}
	t := tls.Client(c.Conn, cfg)
	if err := t.Handshake(); err != nil {
		return err
	}
	c.Conn, c.Structured, c.Extended, c.Contexts = t, false, false, map[string]uint32{}
	c.r.Reset(t)
	return nil
}

// Abort ends the negotiation; the server must say ACK and then nothing.
func (c *Client) Abort() error {
	if _, err := c.Option(OptAbort, nil); err != nil {
		return err
	}
	return c.Ended()
}

// Ended returns nil if the server has closed the connection without another
// word, and waits until it says something or does.
func (c *Client) Ended() error {
	b, err := c.r.ReadByte()
	if err == nil {
		return fmt.Errorf("the server goes on, with byte %#x", b)
	}
	return nil
}

// List returns the exports.
func (c *Client) List() ([]Entry, error) {
	replies, err := c.Option(OptList, nil)
	var list []Entry
	for _, r := range replies {
		if r.Type != RepServer || len(r.Data) < 4 || int(be.Uint32(r.Data)) > len(r.Data)-4 {
			return nil, fmt.Errorf("list: malformed reply %d %x", r.Type, r.Data)
		}
		n := 4 + be.Uint32(r.Data)
		list = append(list, Entry{string(r.Data[4:n]), string(r.Data[n:])})
	}
	return list, err
}

// infoRequest makes the data of INFO and GO.
func infoRequest(name string, kinds []uint16) []byte {
	p := be.AppendUint16(String(name), uint16(len(kinds)))
	for _, k := range kinds {
		p = be.AppendUint16(p, k)
	}
	return p
}

// Info asks about the export called name.
func (c *Client) Info(name string, kinds ...uint16) (Info, error) {
	return c.info(OptInfo, name, kinds)
}

// Go enters the export called name.
func (c *Client) Go(name string, kinds ...uint16) (Info, error) {
	info, err := c.info(OptGo, name, kinds)
	if err == nil {
		c.Size, c.Flags = info.Size, info.Flags
		err = c.checkFlags()
	}
	return info, err
}

func (c *Client) info(opt uint32, name string, kinds []uint16) (Info, error) {
	replies, err := c.Option(opt, infoRequest(name, kinds))
	if err != nil {
		if len(replies) > 0 {
			return Info{}, fmt.Errorf("information before the refusal: %w", err)
		}
		return Info{}, err
	}
	var info Info
	seen := map[uint16]bool{}
	for _, r := range replies {
		if r.Type != RepInfo || len(r.Data) < 2 {
			return info, fmt.Errorf("option %d: reply %d of %d bytes", opt, r.Type, len(r.Data))
		}
		kind := be.Uint16(r.Data)
		if seen[kind] {
			return info, fmt.Errorf("option %d: information %d twice", opt, kind)
		}
		seen[kind] = true
		if err := info.take(kind, r.Data[2:]); err != nil {
			return info, err
		}
	}
	if !seen[InfoExport] {
		return info, errors.New("no NBD_INFO_EXPORT")
	}
	return info, nil
}

// take takes one piece of information.
func (i *Info) take(kind uint16, p []byte) error {
	switch {
	case kind == InfoExport && len(p) == 10:
		i.Size, i.Flags = be.Uint64(p), be.Uint16(p[8:])
	case kind == InfoName && utf8.Valid(p):
		i.Name = string(p)
	case kind == InfoDescription && utf8.Valid(p):
		i.Description = string(p)
	case kind == InfoBlockSize && len(p) == 12:
		i.Minimum, i.Preferred, i.Max = be.Uint32(p), be.Uint32(p[4:]), be.Uint32(p[8:])
		if i.Minimum == 0 || i.Minimum&(i.Minimum-1) != 0 || i.Preferred < max(i.Minimum, 512) ||
			i.Preferred&(i.Preferred-1) != 0 || i.Max < i.Preferred || i.Max%i.Minimum != 0 {
			return fmt.Errorf("impossible block sizes %d %d %d", i.Minimum, i.Preferred, i.Max)
		}
	default:
		return fmt.Errorf("information %d: malformed, %d bytes", kind, len(p))
	}
	return nil
}

// ExportName enters an export in the old way.
func (c *Client) ExportName(name string) error {
	if err := c.SendOption(OptExportName, []byte(name)); err != nil {
		return err
	}
	n := 10
	if !c.noZeroes {
		n += 124
	}
	p, err := c.bytes(n)
	if err != nil {
		return err
	}
	for i, b := range p[10:] {
		if b != 0 {
			return fmt.Errorf("padding byte %d is %#x", i, b)
		}
	}
	c.Size, c.Flags = be.Uint64(p), be.Uint16(p[8:])
	return c.checkFlags()
}

// checkFlags finds transmission flags that cannot be.
func (c *Client) checkFlags() error {
	f := c.Flags
	switch {
	case f&HasFlags == 0:
		return fmt.Errorf("transmission flags %#x without HAS_FLAGS", f)
	case f&SendDF != 0 && !c.Structured && !c.Extended:
		return fmt.Errorf("transmission flags %#x: DF without structured replies", f)
	case f&StatusPayload != 0 && !c.Extended:
		return fmt.Errorf("transmission flags %#x: payloads of block status without extended headers", f)
	case f&SendFastZero != 0 && f&SendWriteZeroes == 0:
		return fmt.Errorf("transmission flags %#x: FAST_ZERO without WRITE_ZEROES", f)
	case f>>13 != 0 || f&SendResize != 0:
		return fmt.Errorf("transmission flags %#x: unknown ones", f)
	}
	return nil
}

// SetContexts chooses metadata contexts for the export called name.
func (c *Client) SetContexts(name string, queries ...string) (map[string]uint32, error) {
	clear(c.Contexts)
	got, err := c.contexts(OptSetMetaContext, name, queries)
	if err == nil {
		c.Contexts = got
	}
	return got, err
}

// ListContexts lists metadata contexts of the export called name.
func (c *Client) ListContexts(name string, queries ...string) (map[string]uint32, error) {
	return c.contexts(OptListMetaContext, name, queries)
}

// ContextRequest returns the data of both options about contexts.
func ContextRequest(name string, queries ...string) []byte {
	p := be.AppendUint32(String(name), uint32(len(queries)))
	for _, q := range queries {
		p = append(p, String(q)...)
	}
	return p
}

func (c *Client) contexts(opt uint32, name string, queries []string) (map[string]uint32, error) {
	replies, err := c.Option(opt, ContextRequest(name, queries...))
	if err != nil {
		return nil, err
	}
	got, ids := map[string]uint32{}, map[uint32]bool{}
	for _, r := range replies {
		if r.Type != RepMetaContext || len(r.Data) < 5 {
			return nil, fmt.Errorf("contexts: reply %d of %d bytes", r.Type, len(r.Data))
		}
		id, context := be.Uint32(r.Data), string(r.Data[4:])
		if _, twice := got[context]; twice || opt == OptSetMetaContext && ids[id] {
			return nil, fmt.Errorf("contexts: %q (%d) twice", context, id)
		}
		if opt == OptListMetaContext && id != 0 {
			return nil, fmt.Errorf("contexts: listed with id %d", id)
		}
		got[context], ids[id] = id, true
	}
	return got, nil
}

// bytes reads n bytes.
func (c *Client) bytes(n int) ([]byte, error) {
	p := make([]byte, n)
	_, err := io.ReadFull(c.r, p)
	return p, err
}
