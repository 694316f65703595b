// Package proxy stands between the gateway and a store, in tests: it counts
// what is asked and what is carried, makes the store far (latency to the first
// byte, bandwidth), and makes it fail as networks and servers do.
//
// [Start] understands HTTP and passes requests on as they are, with their Host,
// so that signatures over a request hold. [StartTCP] carries bytes.
package proxy

import (
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// A TB is what a proxy needs of a testing.TB.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Config says how far a store is and who answers for it.
type Config struct {
	// Latency is the time from the end of a request to the first byte of its
	// answer, at least.
	Latency time.Duration

	// Bandwidth bounds what is carried in each direction, over all
	// connections, in bytes a second; no bound if 0.
	Bandwidth int64

	// TLS serves HTTPS, with a certificate that Certificate returns.
	TLS bool
}

// A Proxy passes HTTP requests on to a store. Its methods may be called at any
// time.
type Proxy struct {
	// URL is where it listens: scheme, host and port.
	URL string

	target    *url.URL
	server    *httptest.Server
	transport *http.Transport
	done      chan struct{} // closed at the end: whoever waits gives up

	toStore, toClient pace

	mu      sync.Mutex
	latency time.Duration
	rules   []*Rule
	counts  map[string]Count
	log     []*Request
}

// A Count says how much was asked and carried.
type Count struct {
	Requests int64
	Sent     int64 // bytes of bodies to the store
	Received int64 // bytes of bodies from the store that went to the client
}

// A Request is what the proxy remembers of one. When a client has seen an
// answer's end, all but Duration is as it stays.
type Request struct {
	Method, Path, Query, Range string
	Status                     int   // as the client saw it; 0 if it saw none
	Sent, Received             int64 // as in Count
	Fault                      bool  // a rule met it
	Start                      time.Time
	Duration                   time.Duration
}

// remembered bounds the log.
const remembered = 1 << 17

// Start starts a proxy before the store at a URL. It ends with the test.
func Start(t TB, target string, cfg Config) *Proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		t.Fatalf("proxy: %q is no URL of a store: %v", target, err)
	}
	p := &Proxy{target: u, done: make(chan struct{}), counts: map[string]Count{}, latency: cfg.Latency,
		transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256, ExpectContinueTimeout: time.Minute,
			ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10}}
	p.SetBandwidth(cfg.Bandwidth)
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	if cfg.TLS {
		p.server.StartTLS()
	} else {
		p.server.Start()
	}
	p.URL = p.server.URL
	t.Cleanup(func() {
		close(p.done)
		p.server.CloseClientConnections()
		p.server.Close()
		p.transport.CloseIdleConnections()
	})
	return p
}

// Certificate returns the certificate of a proxy with TLS, which signed itself.
func (p *Proxy) Certificate() *x509.Certificate { return p.server.Certificate() }

// Host returns the proxy's address, HOST:PORT.
func (p *Proxy) Host() string { return p.server.Listener.Addr().String() }

// SetLatency changes Config.Latency.
func (p *Proxy) SetLatency(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = d
}

// SetBandwidth changes Config.Bandwidth.
func (p *Proxy) SetBandwidth(bytesPerSecond int64) {
	p.toStore.set(bytesPerSecond)
	p.toClient.set(bytesPerSecond)
}

// Disconnect closes every connection to clients, at once.
func (p *Proxy) Disconnect() { p.server.CloseClientConnections() }

// Count returns what was counted for some methods, for all if none is named.
func (p *Proxy) Count(methods ...string) Count {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum Count
	for method, c := range p.counts {
		if len(methods) == 0 || slices.Contains(methods, method) {
			sum.Requests += c.Requests
			sum.Sent += c.Sent
			sum.Received += c.Received
		}
	}
	return sum
}

// Requests returns the requests since the start or the last Forget, in their
// order; the first 131072 of them.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Request, len(p.log))
	for i, r := range p.log {
		all[i] = *r
	}
	return all
}

// Forget begins to count anew.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.counts)
	p.log = nil
}

// An exchange is a request on its way through the proxy.
type exchange struct {
	p     *Proxy
	w     http.ResponseWriter
	r     *http.Request
	fault Fault
	said  *Request  // guarded by p.mu, as asked
	asked time.Time // the end of the request
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	fault, met := p.faultFor(r)
	x := &exchange{p: p, w: w, r: r, fault: fault, asked: now, said: &Request{Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
		Range: r.Header.Get("Range"), Start: now, Fault: met}}
	p.mu.Lock()
	if len(p.log) < remembered {
		p.log = append(p.log, x.said)
	}
	p.mu.Unlock()
	x.count(Count{Requests: 1})
	defer func() { x.note(func() { x.said.Duration = time.Since(now) }) }()
	x.run()
}

// note changes what is remembered of the request.
func (x *exchange) note(change func()) {
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	change()
}

// count adds to what is counted. Bytes are counted just before they pass, so
// that a test may look while a body is on its way.
func (x *exchange) count(c Count) {
	x.note(func() {
		sum := x.p.counts[x.r.Method]
		sum.Requests += c.Requests
		sum.Sent += c.Sent
		sum.Received += c.Received
		x.p.counts[x.r.Method] = sum
		x.said.Sent += c.Sent
		x.said.Received += c.Received
	})
}

// run passes the request on and the answer back, with what the fault does in
// between.
func (x *exchange) run() {
	f := x.fault
	if f.delay > 0 && !x.p.sleep(x.r, f.delay) {
		panic(http.ErrAbortHandler)
	}
	if f.before != intact {
		x.breakOff(f.before)
		return
	}
	if f.status != 0 {
		x.answer(f.status, f.body)
		return
	}
	resp, err := x.p.transport.RoundTrip(x.outgoing())
	if err != nil {
		if errors.Is(err, errCut) {
			x.breakOff(reset)
			return
		}
		x.answer(http.StatusBadGateway, "the proxy cannot reach the store: "+err.Error()+"\n")
		return
	}
	defer resp.Body.Close()
	if f.after != intact {
		io.Copy(io.Discard, resp.Body)
		x.breakOff(f.after)
		return
	}
	x.pass(resp)
}

// outgoing is the request as the store gets it.
func (x *exchange) outgoing() *http.Request {
	out := x.r.Clone(x.r.Context())
	// The path goes on as it came, however it was escaped: it is signed.
	path, _, _ := strings.Cut(x.r.RequestURI, "?")
	out.URL = &url.URL{Scheme: x.p.target.Scheme, Host: x.p.target.Host, Opaque: path, RawQuery: x.r.URL.RawQuery, ForceQuery: x.r.URL.ForceQuery}
	out.RequestURI = ""
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // none, instead of Go's
	}
	if x.fault.ignoreRange {
		out.Header.Del("Range")
		out.Header.Del("If-Range")
	}
	if x.r.Body == http.NoBody {
		out.Body = nil
	} else {
		out.Body = &sending{exchange: x}
	}
	return out
}

// answer answers in the store's place.
func (x *exchange) answer(status int, body string) {
	x.note(func() { x.said.Status = status })
	x.w.Header().Set("Content-Type", "text/plain")
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		io.WriteString(x.w, body)
	}
}

// pass gives the client the store's answer.
func (x *exchange) pass(resp *http.Response) {
	var wait time.Duration
	x.note(func() { wait = time.Until(x.asked.Add(x.p.latency)) })
	if wait > 0 && !x.p.sleep(x.r, wait) {
		panic(http.ErrAbortHandler)
	}
	header := x.w.Header()
	for name, values := range resp.Header {
		header[name] = values
	}
	for _, name := range []string{"Content-Type", "Date"} {
		if _, ok := header[name]; !ok {
			header[name] = nil // none, instead of Go's
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Transfer-Encoding"} {
		header.Del(name)
	}
	body, status := io.Reader(resp.Body), resp.StatusCode
	if x.r.Method != http.MethodHead {
		body = x.fault.spoil(body, header)
	}
	if x.fault.pretend != 0 {
		status = x.fault.pretend
		header.Del("Content-Range")
	}
	for name, value := range x.fault.header {
		header.Set(name, value)
	}
	x.note(func() { x.said.Status = status })
	x.w.WriteHeader(status)
	if x.r.Method == http.MethodHead {
		return
	}
	x.carry(body)
}

// carry carries the body of an answer, at the store's and the fault's speed. A
// body that ends early takes the connection with it, as it does without a
// proxy.
func (x *exchange) carry(body io.Reader) {
	flush := http.NewResponseController(x.w)
	if err := flush.Flush(); err != nil {
		panic(http.ErrAbortHandler)
	}
	buf := make([]byte, 64<<10)
	if x.fault.drip > 0 { // a tenth of a second's worth at a time
		buf = buf[:min(int64(len(buf)), max(1, x.fault.drip/10))]
	}
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if !x.p.toClient.wait(x.r, x.p.done, int64(n)) {
				panic(http.ErrAbortHandler)
			}
			x.count(Count{Received: int64(n)})
			if _, err := x.w.Write(buf[:n]); err != nil {
				panic(http.ErrAbortHandler)
			}
			if x.fault.drip > 0 {
				flush.Flush()
				if !x.p.sleep(x.r, time.Duration(float64(n)/float64(x.fault.drip)*float64(time.Second))) {
					panic(http.ErrAbortHandler)
				}
			}
		}
		switch {
		case err == io.EOF:
			return
		case errors.Is(err, errCut) && x.fault.rest != intact:
			flush.Flush()
			x.breakOff(x.fault.rest)
			return
		case err != nil:
			flush.Flush()
			panic(http.ErrAbortHandler)
		}
	}
}

// sleep waits and says whether the client still does.
func (p *Proxy) sleep(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
	case <-p.done:
	}
	return false
}

// sending is the body of a request on its way to the store.
type sending struct {
	exchange *exchange
	n        int64
}

// errCut is the end of a body that a fault cut.
var errCut = errors.New("proxy: cut by a fault")

func (s *sending) Read(p []byte) (int, error) {
	x := s.exchange
	if cut := x.fault.cutRequest; x.fault.cutsRequest {
		if s.n >= cut {
			return 0, errCut
		}
		p = p[:min(int64(len(p)), cut-s.n)]
	}
	n, err := x.r.Body.Read(p)
	s.n += int64(n)
	if n > 0 {
		if !x.p.toStore.wait(x.r, x.p.done, int64(n)) {
			return 0, errCut
		}
		x.count(Count{Sent: int64(n)})
	}
	if err == io.EOF {
		x.note(func() { x.asked = time.Now() })
	}
	return n, err
}

func (s *sending) Close() error { return s.exchange.r.Body.Close() }
