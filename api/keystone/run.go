package keystone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
)

// lookEvery is how often Run looks whether a trouble is over.
const lookEvery = 10 * time.Second

// Run keeps house until ctx ends: it logs in, so that a mistake in the
// configuration is in the log before the first request, tries again while
// there is trouble, and drops what is stale.
func (k *Keystone) Run(ctx context.Context) error {
	k.try(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if k.Trouble() != nil {
			k.try(ctx)
		}
		k.mu.Lock()
		k.good.tidy(k.cfg.Now())
		k.bad.tidy(k.cfg.Now())
		k.mu.Unlock()
	}
}

// try asks Keystone about the gateway's own token.
func (k *Keystone) try(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	own, err := k.login.get(ctx, nil)
	if err == nil {
		_, err = k.ask(ctx, own.provider.Token(), false)
		if errors.Is(err, errInvalid) {
			err = fmt.Errorf("keystone at %s gave a token and does not know it: do all its servers have the same keys and the same time as this machine?", k.cfg.URL)
		}
	}
	if err == nil && !k.proven.Load() && !slices.Contains(own.roles, serviceRole) && !slices.Contains(own.roles, "admin") {
		// Keystone lets everybody ask about his own token, so that proves little.
		err = fmt.Errorf("the gateway's user %q has the roles [%s] on project %q, and Keystone lets only %s and admin validate tokens: give it the role %[4]s there",
			k.cfg.Username, strings.Join(own.roles, " "), k.cfg.Project, serviceRole)
	}
	if ctx.Err() == nil || err != nil {
		k.trouble.note(k.log, err)
	}
}

// Trouble says what hinders the checking of tokens, or nil.
func (k *Keystone) Trouble() error {
	k.trouble.mu.Lock()
	defer k.trouble.mu.Unlock()
	return k.trouble.err
}

// Endpoint returns the URL of a service, such as "image", as Keystone's
// catalog has it for a region; "" is any.
func (k *Keystone) Endpoint(ctx context.Context, service, region string) (string, error) {
	return k.EndpointOf(ctx, service, region, "public")
}

// EndpointOf is Endpoint for one of the interfaces public, internal, admin.
func (k *Keystone) EndpointOf(ctx context.Context, service, region, iface string) (string, error) {
	availability := gophercloud.Availability(iface)
	switch availability {
	case gophercloud.AvailabilityPublic, gophercloud.AvailabilityInternal, gophercloud.AvailabilityAdmin:
	default:
		return "", fmt.Errorf("there is no interface %.40q of services; there are public, internal and admin", iface)
	}
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	own, err := k.login.get(ctx, nil)
	if err != nil {
		return "", err
	}
	opts := gophercloud.EndpointOpts{Region: region, Availability: availability}
	opts.ApplyDefaults(service)
	url, err := own.provider.EndpointLocator(opts)
	if err != nil { // the catalog came with our token, and may have grown since
		if own, err = k.login.get(ctx, own); err != nil {
			return "", err
		}
		url, err = own.provider.EndpointLocator(opts)
	}
	if err != nil {
		return "", fmt.Errorf("keystone at %s has no %s endpoint for the service type %s: %w", k.cfg.URL, iface, service, err)
	}
	return url, nil
}

// A trouble is what is wrong now.
type trouble struct {
	mu  sync.Mutex
	err error
}

// note takes in how the last question ended. The log hears of the begin of a
// trouble, of another one, and of the end.
func (t *trouble) note(log *slog.Logger, err error) {
	if errors.Is(err, errInvalid) || errors.Is(err, context.Canceled) {
		err = nil // Keystone does its part
	}
	t.mu.Lock()
	before := t.err
	t.err = err
	t.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		log.Error("tokens cannot be checked; those that were checked a moment ago go on, others get 503", "err", err)
	case err == nil && before != nil:
		log.Info("tokens can be checked again")
	}
}
