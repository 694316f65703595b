package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultLease is how long a gateway may be silent before others take it for
// gone, where nobody says otherwise.
const DefaultLease = 15 * time.Second

// leaveTime bounds the farewell of a gateway that stops.
const leaveTime = 3 * time.Second

// A Gateway is one that runs: its lease has not ended.
type Gateway struct {
	ID       string
	Address  string    // where its API is; "": it does not say
	Since    time.Time // when it joined
	Revision int64     // of the record; not stored
}

// Gateways returns the gateways that run, sorted by id. One that died is gone
// from it when its lease ends.
func (c *Catalog) Gateways(context.Context) ([]Gateway, error) {
	var list []Gateway
	c.store.read(func(s *state) {
		for _, g := range s.gateways {
			list = append(list, g)
		}
	})
	slices.SortFunc(list, func(a, b Gateway) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func gatewayKind() kind[Gateway] {
	return kind[Gateway]{"gateway", preGateway, decodeGateway, func(s *state, id string) (Gateway, int64, bool) {
		g, ok := s.gateways[id]
		return g, g.Revision, ok
	}}
}

// A Membership is a gateway's place among the others: a record on a lease that
// is kept alive. It says whether the gateway may still act as the owner of
// what it took. A nil Membership is that of a gateway that has nobody beside
// it: it is always valid and never lost.
//
// It measures with a clock that nobody can set, from the moment at which the
// last renewal that succeeded was asked for, and stops well before the server
// lets go. Valid is a look at that clock, so a process that was stopped sees
// at once that its time is over. What still slips through, since a process can
// stop right after it has looked, is caught by epochs: see CommitHead.
type Membership struct {
	c     *Catalog
	lease Lease
	ttl   time.Duration
	rev   int64 // of our record

	deadline atomic.Int64  // on the clock: until then we are valid
	lost     chan struct{} // closed when the lease has ended
	renewing sync.Mutex

	mu      sync.Mutex
	renewed chan struct{} // closed, and replaced, by each renewal

	stop    context.CancelFunc
	running sync.WaitGroup
}

// Join makes this gateway known to the others, at address, for as long as it
// is heard of at least every ttl (0: DefaultLease). A gateway of the same id
// that joined before is taken for an earlier run of this one, and has lost its
// place. A KV without leases is errors.ErrUnsupported. Leave with Close,
// before the Catalog's.
func (c *Catalog) Join(ctx context.Context, ttl time.Duration, address string) (*Membership, error) {
	if ttl == 0 {
		ttl = DefaultLease
	}
	m, err := c.join(ctx, ttl, address)
	if err != nil {
		return nil, fmt.Errorf("catalog: join as gateway %s: %w", c.cfg.GatewayID, err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	m.running.Go(func() { m.keep(run) })
	c.member.Store(m)
	c.log.Info("catalog: joined the other gateways", "gateway", c.cfg.GatewayID, "lease", m.ttl)
	return m, nil
}

func (c *Catalog) join(ctx context.Context, ttl time.Duration, address string) (*Membership, error) {
	if err := checkID("gateway", c.cfg.GatewayID); err != nil {
		return nil, err
	}
	lease, err := NewLease(ctx, c.kv, ttl)
	if err != nil {
		return nil, err
	}
	m := &Membership{c: c, lease: lease, lost: make(chan struct{}), renewed: make(chan struct{})}
	g := Gateway{ID: c.cfg.GatewayID, Address: address, Since: c.now()}
	op, err := put(preGateway+g.ID, g.record())
	if err == nil {
		op.Lease = lease.ID()
		m.rev, err = c.commit(ctx, Txn{Then: []Op{op}})
	}
	if err == nil {
		m.ttl, err = m.renew(ctx)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
		defer cancel()
		return nil, errors.Join(err, lease.Revoke(ctx))
	}
	return m, nil
}

// Valid tells whether nobody else can have taken what this gateway owns.
func (m *Membership) Valid() bool {
	return m == nil || !m.isLost() && int64(m.c.cfg.Clock()) < m.deadline.Load()
}

// Lost returns a channel that is closed when the lease has ended: others may
// have taken what this gateway owned. There is no way back but to close the
// Membership, to Join again, and to take each overlay again.
func (m *Membership) Lost() <-chan struct{} {
	if m == nil {
		return nil
	}
	return m.lost
}

func (m *Membership) isLost() bool {
	select {
	case <-m.lost:
		return true
	default:
		return false
	}
}

// Wait returns when the Membership is valid, at once or after the KV has
// confirmed that the lease never ended, in which case nobody has taken
// anything meanwhile. A lease that has ended is ErrLeaseGone.
func (m *Membership) Wait(ctx context.Context) error {
	for {
		if m.Valid() {
			return nil
		}
		if m.isLost() {
			return fmt.Errorf("catalog: gateway %s: %w", m.c.cfg.GatewayID, ErrLeaseGone)
		}
		m.mu.Lock()
		renewed := m.renewed
		m.mu.Unlock()
		if m.Valid() {
			return nil // renewed since we looked
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.lost:
		case <-renewed:
		}
	}
}

// Renew begins the lease's time anew, now. The Membership does so by itself.
func (m *Membership) Renew(ctx context.Context) error {
	if m == nil {
		return nil
	}
	if _, err := m.renew(ctx); err != nil {
		return fmt.Errorf("catalog: renew the lease of gateway %s: %w", m.c.cfg.GatewayID, err)
	}
	return nil
}

func (m *Membership) renew(ctx context.Context) (time.Duration, error) {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	if m.isLost() {
		return 0, ErrLeaseGone
	}
	asked := m.c.cfg.Clock()
	ttl, err := m.lease.Renew(ctx)
	// The record says what the lease is worth. It is read from all members of
	// the KV together: one that is cut off from the others cannot renew a
	// lease that those have ended, and may not know it yet.
	p, e := m.c.kv.Get(ctx, preGateway+m.c.cfg.GatewayID)
	switch {
	case errors.Is(e, fs.ErrNotExist), e == nil && p.Revision != m.rev:
		m.lose()
		return 0, ErrLeaseGone
	case err != nil, e != nil:
		return 0, errors.Join(err, e)
	}
	m.deadline.Store(int64(asked + ttl - margin(ttl)))
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.renewed)
	m.renewed = make(chan struct{})
	return ttl, nil
}

// margin is how long before its end a lease is not relied on any more: for
// clocks that run at other speeds, and for what was begun while it was good.
func margin(ttl time.Duration) time.Duration { return ttl / 4 }

// lose notes that the lease has ended.
func (m *Membership) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.isLost() {
		close(m.lost)
	}
}

// keep renews the lease until it has ended, or until ctx does. A call that
// hangs must leave time for two more before the lease's time is over.
func (m *Membership) keep(ctx context.Context) {
	was, pause := true, m.ttl/6
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.lost:
			m.c.log.Error("catalog: the lease of this gateway has ended; others may take what it owned", "gateway", m.c.cfg.GatewayID)
			return
		case <-time.After(pause):
		}
		try, cancel := context.WithTimeout(ctx, m.ttl/4)
		err := m.Renew(try)
		cancel()
		if pause = m.ttl / 6; err != nil {
			pause = m.ttl / 30
		}
		if is := m.Valid(); is != was && ctx.Err() == nil && !m.isLost() {
			was = is
			if is {
				m.c.log.Info("catalog: the lease of this gateway is confirmed again", "gateway", m.c.cfg.GatewayID)
			} else {
				m.c.log.Warn("catalog: the lease of this gateway cannot be renewed; writes to overlays wait", "gateway", m.c.cfg.GatewayID, "error", err)
			}
		}
	}
}

// Close leaves the others, who need not wait for the lease to end. From then
// on this gateway can take nothing until it joins again.
func (m *Membership) Close() error {
	if m == nil {
		return nil
	}
	m.stop()
	m.running.Wait()
	m.lose()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if err := m.lease.Revoke(ctx); err != nil {
		return fmt.Errorf("catalog: leave as gateway %s: it is taken for gone after %s: %w", m.c.cfg.GatewayID, m.ttl, err)
	}
	return nil
}

// mine returns the condition that this gateway's lease has not ended, if it
// has one.
func (c *Catalog) mine(ctx context.Context) ([]Cond, error) {
	m := c.member.Load()
	if m == nil {
		return nil, nil
	}
	_, rev, err := fresh(ctx, c, gatewayKind(), c.cfg.GatewayID)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && rev != m.rev:
		return nil, fmt.Errorf("gateway %s: %w", c.cfg.GatewayID, ErrLeaseGone)
	case err != nil:
		return nil, err
	}
	return []Cond{{Key: preGateway + c.cfg.GatewayID, Revision: m.rev}}, nil
}

// leaseTime is how long the lease of a gateway may outlive it.
func (c *Catalog) leaseTime() time.Duration {
	if m := c.member.Load(); m != nil {
		return m.ttl
	}
	return DefaultLease
}
