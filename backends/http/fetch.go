package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A FetchConfig says what strangers may have fetched. Of each pair of lists
// the first one that is not empty decides, as Glance's filtering options do:
// Allowed names all that may be, Disallowed all that may not.
type FetchConfig struct {
	AllowedSchemes, DisallowedSchemes []string // allowed by default: http, https
	AllowedHosts, DisallowedHosts     []string // names or addresses
	AllowedPorts, DisallowedPorts     []string // allowed by default: 80, 443

	// Timeout is how long a server may be silent, before and in the midst of
	// an answer. Default: 30 s.
	Timeout time.Duration

	// Redirects is how many are followed. Default: 5.
	Redirects int

	// Logger hears why something could not be fetched, which who asks for it
	// is not told. Default: silence.
	Logger *slog.Logger

	// Resolve, if set, replaces the system's look-up of names.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// maxHeader bounds the header of an answer.
const maxHeader = 64 << 10

// A Fetcher reads files of web servers once, from their beginning, for people
// who must not reach through it what they could not reach themselves. A host
// on the list of allowed ones may have any address, others only addresses of
// the public Internet. The connection goes to the very address that was
// checked, and each redirect is checked like the first URL.
//
// Its errors do not tell whether a port is open.
type Fetcher struct {
	cfg    FetchConfig
	dialer net.Dialer
	client *http.Client
}

// NewFetcher makes a Fetcher.
func NewFetcher(cfg FetchConfig) (*Fetcher, error) {
	if len(cfg.AllowedSchemes) == 0 && len(cfg.DisallowedSchemes) == 0 {
		cfg.AllowedSchemes = []string{"http", "https"}
	}
	if len(cfg.AllowedPorts) == 0 && len(cfg.DisallowedPorts) == 0 {
		cfg.AllowedPorts = []string{"80", "443"}
	}
	for _, list := range [][]string{cfg.AllowedPorts, cfg.DisallowedPorts} {
		for _, port := range list {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return nil, fmt.Errorf("http: %q is no port: %w", port, fs.ErrInvalid)
			}
		}
	}
	cfg.AllowedHosts, cfg.DisallowedHosts = lower(cfg.AllowedHosts), lower(cfg.DisallowedHosts)
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Redirects <= 0 {
		cfg.Redirects = 5
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Resolve == nil {
		cfg.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	f := &Fetcher{cfg: cfg, dialer: net.Dialer{Timeout: min(cfg.Timeout, 10*time.Second)}}
	f.client = &http.Client{
		CheckRedirect: f.redirect,
		Transport: &http.Transport{ // no proxy: it would look names up by itself
			DialContext: f.dial, DisableKeepAlives: true, DisableCompression: true,
			TLSHandshakeTimeout: cfg.Timeout, ResponseHeaderTimeout: cfg.Timeout, MaxResponseHeaderBytes: maxHeader,
		},
	}
	return f, nil
}

func lower(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = plainName(strings.Trim(s, "[]"))
	}
	return out
}

// plainName is a host as lists have it: of the many spellings of a name or of
// an address, one.
func plainName(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		return a.Unmap().String()
	}
	return host
}

// Check tells why a URL may not be fetched, before anything is: an
// fs.ErrPermission, or an fs.ErrInvalid of what is no such URL. It asks for the
// addresses of the host.
func (f *Fetcher) Check(uri string) error {
	u, err := f.parse(uri)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(f.cfg.Timeout, 10*time.Second))
	defer cancel()
	_, err = f.addresses(ctx, u.Hostname())
	return err
}

// parse checks a URL as far as it goes without its addresses.
func (f *Fetcher) parse(uri string) (*url.URL, error) {
	invalid := func(why string) (*url.URL, error) { return nil, fmt.Errorf("the URL %s: %w", why, fs.ErrInvalid) }
	if len(uri) > 8192 || strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return invalid("is too long, or has characters in it that no URL has")
	}
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return invalid("is not one such as https://images.example.org/disk.qcow2")
	case u.User != nil:
		return invalid("has a user name or password in it, which is not used")
	case u.Scheme != "http" && u.Scheme != "https", !passes(u.Scheme, f.cfg.AllowedSchemes, f.cfg.DisallowedSchemes):
		return nil, fmt.Errorf("the scheme %.20q is not allowed: %w", u.Scheme, fs.ErrPermission)
	}
	host := plainName(u.Hostname())
	if why := badHost(host); why != "" {
		return invalid(why)
	}
	if !passes(host, f.cfg.AllowedHosts, f.cfg.DisallowedHosts) {
		return nil, fmt.Errorf("the host %.255s is not allowed: %w", host, fs.ErrPermission)
	}
	if port := portOf(u); !passes(port, f.cfg.AllowedPorts, f.cfg.DisallowedPorts) {
		return nil, fmt.Errorf("the port %.5s is not allowed: %w", port, fs.ErrPermission)
	}
	return u, nil
}

// passes tells whether a list allows a word.
func passes(word string, allowed, disallowed []string) bool {
	if len(allowed) > 0 {
		return slices.Contains(allowed, word)
	}
	return !slices.Contains(disallowed, word)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			return strconv.FormatUint(n, 10) // 0080 is 80
		}
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// badHost tells what is wrong with a host. An address has one spelling here:
// what only some programs read as one (127.1, 0x7f000001, 2130706433) would be
// checked as a name and used as an address.
func badHost(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "has an address with a zone in it"
		}
		return ""
	}
	labels := strings.Split(host, ".")
	last := labels[len(labels)-1]
	if len(host) > 253 || strings.HasPrefix(last, "0x") || strings.Trim(last, "0123456789") == "" {
		return "has a host that is neither a name nor an address as it is usually written"
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "has a host that is no name"
		}
	}
	return ""
}

// maxAddresses is how many addresses of a host are looked at: whoever owns a
// name can give it thousands.
const maxAddresses = 4

// addresses returns those that a host may be reached at. Who asks is not told
// whether there is such a name.
func (f *Fetcher) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	name := plainName(host)
	var list []netip.Addr
	if a, err := netip.ParseAddr(name); err == nil {
		list = []netip.Addr{a}
	} else if list, err = f.cfg.Resolve(ctx, name); err != nil || len(list) == 0 {
		f.cfg.Logger.InfoContext(ctx, "a host that a fetch is asked from has no address", "host", name, "err", err)
		return nil, notPublic(name)
	}
	if slices.Contains(f.cfg.AllowedHosts, name) {
		return list[:min(len(list), maxAddresses)], nil
	}
	// One that is not public is enough: which of them is used would be luck.
	for _, a := range list {
		if !public(a) || len(f.cfg.AllowedHosts) == 0 && slices.Contains(f.cfg.DisallowedHosts, a.Unmap().String()) {
			return nil, notPublic(name)
		}
	}
	return list[:min(len(list), maxAddresses)], nil
}

func notPublic(name string) error {
	return fmt.Errorf("the host %.255s has no address on the public Internet, and is not on the list of allowed hosts: %w", name, fs.ErrPermission)
}

// dial connects to a host at an address that was checked.
func (f *Fetcher) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	list, err := f.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		var conn net.Conn
		if conn, err = f.dialer.DialContext(ctx, network, net.JoinHostPort(a.Unmap().String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// redirect checks where a redirect leads.
func (f *Fetcher) redirect(to *http.Request, via []*http.Request) error {
	if len(via) > f.cfg.Redirects {
		return fmt.Errorf("%w: there were %d before", errRedirect, f.cfg.Redirects)
	}
	if via[len(via)-1].URL.Scheme == "https" && to.URL.Scheme != "https" {
		return fmt.Errorf("%w: from https to http: %w", errRedirect, fs.ErrPermission)
	}
	to.Header.Del("Referer")
	to.Header.Del(tokenHeader)
	_, err := f.parse(to.URL.String())
	return err
}

// Open begins to read a file. size is -1 if the server does not say it.
func (f *Fetcher) Open(ctx context.Context, uri string) (io.ReadCloser, int64, error) {
	return f.OpenWith(ctx, uri, "")
}

// tokenHeader carries a token of OpenStack's identity service.
const tokenHeader = "X-Auth-Token"

// OpenWith is Open with a token for the server. It is sent to that one only,
// and to none that this one leads to.
func (f *Fetcher) OpenWith(ctx context.Context, uri, token string) (io.ReadCloser, int64, error) {
	u, err := f.parse(uri)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	body, size, err := f.open(ctx, u, token)
	if err != nil {
		cancel()
		return nil, 0, f.told(ctx, u, err)
	}
	r := &fetched{f: f, u: u, body: body, quit: cancel, idle: time.AfterFunc(f.cfg.Timeout, cancel)}
	r.idle.Stop()
	return r, size, nil
}

func (f *Fetcher) open(ctx context.Context, u *url.URL, token string) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("User-Agent", "platter")
	if token != "" {
		req.Header.Set(tokenHeader, token)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	coding := resp.Header.Get("Content-Encoding")
	switch {
	case resp.StatusCode != http.StatusOK:
		err = &statusError{resp.StatusCode}
	case coding != "" && coding != "identity":
		err = fmt.Errorf("the server sends it coded, though not asked to: %w", errRange)
	}
	if err != nil {
		resp.Body.Close()
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// told is the error for who asked: what was refused, or what the server
// answered, but not how far a connection came.
func (f *Fetcher) told(ctx context.Context, u *url.URL, err error) error {
	answer, ok := errors.AsType[*statusError](err)
	wrapped, inside := errors.AsType[*url.Error](err)
	if inside {
		err = wrapped.Err // without the URL, whose query may be a secret
	}
	f.cfg.Logger.InfoContext(ctx, "a fetch failed", "host", u.Host, "err", err)
	switch {
	case ok:
		return fmt.Errorf("fetch from %s: %w", u.Host, answer)
	case inside && (errors.Is(err, errRedirect) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrInvalid)):
		return fmt.Errorf("fetch from %s: %w", u.Host, err)
	}
	return fmt.Errorf("fetch from %s: it could not be read", u.Host)
}

// A fetched file ends when its server is silent for too long.
type fetched struct {
	f    *Fetcher
	u    *url.URL
	body io.ReadCloser
	quit context.CancelFunc
	idle *time.Timer
}

// Read reads.
func (r *fetched) Read(p []byte) (int, error) {
	r.idle.Reset(r.f.cfg.Timeout)
	n, err := r.body.Read(p)
	r.idle.Stop() // the reader may take its time
	if err != nil && err != io.EOF {
		err = fmt.Errorf("fetch from %s: the server broke off, or was silent for %s", r.u.Host, r.f.cfg.Timeout)
	}
	return n, err
}

// Close ends the fetch.
func (r *fetched) Close() error {
	r.idle.Stop()
	r.quit()
	return r.body.Close()
}
