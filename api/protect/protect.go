package protect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/api/wire"
)

// An Operation is what somebody does to a property.
type Operation int

// The operations.
const (
	Create Operation = iota
	Read
	Update
	Delete
)

// String returns the word for an operation in the file.
func (op Operation) String() string { return operations()[op] }

func operations() [4]string { return [4]string{"create", "read", "update", "delete"} }

// maxFile bounds the file.
const maxFile = 1 << 20

// A Config says where the rules come from.
type Config struct {
	File string

	// Policies has the file name rules of the policy instead of roles.
	Policies bool
	Policy   wire.Policy // asked then
}

// Rules are the rules of a file. nil Rules let everybody do everything.
type Rules struct {
	rules  []rule
	policy wire.Policy // nil: they name roles
}

// A rule is one section of the file.
type rule struct {
	name *regexp.Regexp
	who  [4][]string // by operation, in lower case
}

// Open reads the rules. The error says every mistake of the file, each with
// its line.
func Open(cfg Config) (*Rules, error) {
	f, err := os.Open(cfg.File)
	if err != nil {
		return nil, fmt.Errorf("property protection: %w", err)
	}
	defer f.Close()
	sections, err := parse(f)
	r := &Rules{}
	if cfg.Policies {
		r.policy = cfg.Policy
	}
	errs := []error{err}
	for _, s := range sections {
		one, err := s.compile(cfg.Policies)
		r.rules = append(r.rules, one)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("property protection: %s: %w", cfg.File, err)
	}
	return r, nil
}

// Allow tells whether who may do op to the property of that name.
func (r *Rules) Allow(ctx context.Context, who wire.Identity, op Operation, property string) bool {
	if r == nil {
		return true
	}
	for i := range r.rules {
		if r.rules[i].name.MatchString(property) {
			return r.allow(ctx, who, r.rules[i].who[op])
		}
	}
	return false
}

func (r *Rules) allow(ctx context.Context, who wire.Identity, list []string) bool {
	switch {
	case slices.Contains(list, "!") || len(list) == 0:
		return false
	case slices.Contains(list, "@"):
		return true
	case r.policy != nil:
		return r.policy.Allow(ctx, who, list[0], wire.Target{}) == nil
	}
	has := func(role string) bool { return slices.Contains(list, strings.ToLower(role)) }
	return slices.ContainsFunc(who.Roles, has) || slices.ContainsFunc(who.Service.Roles, has)
}

// Check is Allow for what the caller must be told: a refusal has status 403.
func (r *Rules) Check(ctx context.Context, op Operation, property string) error {
	if r.Allow(ctx, wire.IdentityFrom(ctx), op, property) {
		return nil
	}
	return wire.Errorf(http.StatusForbidden, "Attribute '%.255s' is reserved: the operator's property protection does not let you %s it.", property, op)
}

// Visible returns the properties that the caller may read: the same map, or a
// smaller one.
func (r *Rules) Visible(ctx context.Context, properties map[string]string) map[string]string {
	if r == nil {
		return properties
	}
	who := wire.IdentityFrom(ctx)
	out := make(map[string]string, len(properties))
	for name, value := range properties {
		if r.Allow(ctx, who, Read, name) {
			out[name] = value
		}
	}
	return out
}
