package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

func namespaceKind() kind[Namespace] {
	return kind[Namespace]{"namespace", preNamespace, decodeNamespace, func(s *state, id string) (Namespace, int64, bool) {
		n, ok := s.namespaces[id]
		return n.Clone(), n.Revision, ok
	}}
}

// normalize brings a namespace into the shape in which it is stored.
func (n *Namespace) normalize() error {
	if n.Name == "" || len(namespaceKey(n.Name)) > 512 {
		return fmt.Errorf("namespace name of %d bytes: %w", len(n.Name), fs.ErrInvalid)
	}
	if n.Visibility == "" {
		n.Visibility = VisibilityPrivate
	}
	if n.Visibility != VisibilityPrivate && n.Visibility != VisibilityPublic {
		return fmt.Errorf("namespace %s: visibility %q: %w", n.Name, n.Visibility, fs.ErrInvalid)
	}
	return nil
}

// withTypes adds to txn that the resource types of a namespace are known.
func (c *Catalog) withTypes(n Namespace, txn Txn) Txn {
	var missing []string
	c.store.read(func(s *state) {
		for _, a := range n.ResourceTypes {
			if _, ok := s.resourceTypes[a.Name]; !ok && !slices.Contains(missing, a.Name) {
				missing = append(missing, a.Name)
			}
		}
	})
	for _, name := range missing {
		txn.Then = append(txn.Then, mark(resourceTypeKey(name), "", c.now()))
	}
	return txn
}

// CreateNamespace adds a namespace with everything in it. A name that is taken
// is fs.ErrExist.
func (c *Catalog) CreateNamespace(ctx context.Context, n Namespace) (Namespace, error) {
	n = n.Clone()
	n.CreatedAt = c.now()
	n.UpdatedAt = n.CreatedAt
	err := n.normalize()
	if err == nil {
		n.Revision, err = create(ctx, c, namespaceKey(n.Name), n.record(), c.withTypes(n, Txn{}))
	}
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("the name is taken: %w", fs.ErrExist)
	}
	if err != nil {
		return Namespace{}, fmt.Errorf("catalog: create namespace %s: %w", n.Name, err)
	}
	return n, nil
}

// Namespace returns a namespace, or fs.ErrNotExist.
func (c *Catalog) Namespace(_ context.Context, name string) (Namespace, error) {
	n, err := get(c, namespaceKind(), escapeName(name))
	if err != nil {
		return Namespace{}, fmt.Errorf("catalog: %w", err)
	}
	return n, nil
}

// UpdateNamespace changes a namespace by f, which may be called several times,
// and may rename it: a name that is taken is fs.ErrExist. created_at does not
// change; updated_at becomes now.
func (c *Catalog) UpdateNamespace(ctx context.Context, name string, f func(*Namespace) error) (Namespace, error) {
	var out Namespace
	rev, err := change(ctx, c, namespaceKind(), escapeName(name), func(n Namespace) (Txn, error) {
		old := n
		if err := f(&n); err != nil {
			return Txn{}, err
		}
		n = n.Clone()
		n.CreatedAt, n.UpdatedAt = old.CreatedAt, c.after(old.UpdatedAt)
		if err := n.normalize(); err != nil {
			return Txn{}, err
		}
		out = n
		op, err := put(namespaceKey(n.Name), n.record())
		txn := c.withTypes(n, Txn{Then: []Op{op}})
		if n.Name != old.Name {
			_, seen, other := fresh(ctx, c, namespaceKind(), escapeName(n.Name))
			if other == nil {
				return txn, fmt.Errorf("namespace %s is there already: %w", n.Name, fs.ErrExist)
			}
			if !errors.Is(other, fs.ErrNotExist) {
				return txn, other
			}
			txn.If = append(txn.If, Cond{Key: namespaceKey(n.Name), Revision: seen})
			txn.Then = append(txn.Then, Op{Key: namespaceKey(old.Name), Delete: true})
		}
		return txn, err
	})
	if err != nil {
		return Namespace{}, fmt.Errorf("catalog: update namespace %s: %w", name, err)
	}
	out.Revision = rev
	return out, nil
}

// DeleteNamespace removes a namespace with everything in it. A protected one is
// fs.ErrPermission.
func (c *Catalog) DeleteNamespace(ctx context.Context, name string) error {
	_, err := change(ctx, c, namespaceKind(), escapeName(name), func(n Namespace) (Txn, error) {
		if n.Protected {
			return Txn{}, fmt.Errorf("it is protected; remove the protection first: %w", fs.ErrPermission)
		}
		return Txn{Then: []Op{{Key: namespaceKey(name), Delete: true}}}, nil
	})
	if err != nil {
		return fmt.Errorf("catalog: delete namespace %s: %w", name, err)
	}
	return nil
}

// Namespaces returns all namespaces, sorted by name.
func (c *Catalog) Namespaces(context.Context) ([]Namespace, error) {
	var list []Namespace
	c.store.read(func(s *state) {
		for _, n := range s.namespaces {
			list = append(list, n.Clone())
		}
	})
	slices.SortFunc(list, func(a, b Namespace) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// ResourceTypes returns the types that namespaces are or were for, sorted by
// name.
func (c *Catalog) ResourceTypes(context.Context) ([]ResourceType, error) {
	var list []ResourceType
	c.store.read(func(s *state) {
		for _, t := range s.resourceTypes {
			list = append(list, t)
		}
	})
	slices.SortFunc(list, func(a, b ResourceType) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
