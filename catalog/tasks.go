package catalog

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/google/uuid"
)

func taskKind() kind[Task] {
	return kind[Task]{"task", preTask, decodeTask, func(s *state, id string) (Task, int64, bool) {
		t, ok := s.tasks[id]
		return t.Clone(), t.Revision, ok
	}}
}

// CreateTask adds a task. Without an id it gets one; without a status it is
// pending.
func (c *Catalog) CreateTask(ctx context.Context, t Task) (Task, error) {
	t = t.Clone()
	if t.ID == "" {
		t.ID = uuid.NewString()
	}
	if t.Status == "" {
		t.Status = TaskPending
	}
	t.CreatedAt = c.now()
	t.UpdatedAt, t.ExpiresAt = t.CreatedAt, moment(t.ExpiresAt)
	err := checkID("task", t.ID)
	if err == nil {
		t.Revision, err = create(ctx, c, preTask+t.ID, t.record(), Txn{})
	}
	if err != nil {
		return Task{}, fmt.Errorf("catalog: create task %s: %w", t.ID, err)
	}
	return t, nil
}

// Task returns a task, or fs.ErrNotExist.
func (c *Catalog) Task(_ context.Context, id string) (Task, error) {
	t, err := get(c, taskKind(), id)
	if err != nil {
		return Task{}, fmt.Errorf("catalog: %w", err)
	}
	return t, nil
}

// UpdateTask changes a task by f, which may be called several times. Id and
// created_at do not change; updated_at becomes now.
func (c *Catalog) UpdateTask(ctx context.Context, id string, f func(*Task) error) (Task, error) {
	var out Task
	rev, err := change(ctx, c, taskKind(), id, func(t Task) (Txn, error) {
		old := t
		if err := f(&t); err != nil {
			return Txn{}, err
		}
		t = t.Clone()
		t.ID, t.CreatedAt, t.UpdatedAt, t.ExpiresAt = old.ID, old.CreatedAt, c.after(old.UpdatedAt), moment(t.ExpiresAt)
		out = t
		op, err := put(preTask+id, t.record())
		return Txn{Then: []Op{op}}, err
	})
	if err != nil {
		return Task{}, fmt.Errorf("catalog: update task %s: %w", id, err)
	}
	out.Revision = rev
	return out, nil
}

// DeleteTask removes a task.
func (c *Catalog) DeleteTask(ctx context.Context, id string) error {
	_, err := change(ctx, c, taskKind(), id, func(Task) (Txn, error) {
		return Txn{Then: []Op{{Key: preTask + id, Delete: true}}}, nil
	})
	if err != nil {
		return fmt.Errorf("catalog: delete task %s: %w", id, err)
	}
	return nil
}

// ExpireTasks removes the tasks whose time is over, and returns how many.
func (c *Catalog) ExpireTasks(ctx context.Context) (int, error) {
	now, n := c.now(), 0
	tasks, err := c.Tasks(ctx, TaskQuery{Viewer: Viewer{Admin: true}})
	for _, t := range tasks {
		if t.ExpiresAt.IsZero() || t.ExpiresAt.After(now) || !t.Status.Done() {
			continue
		}
		if err := c.DeleteTask(ctx, t.ID); err != nil {
			return n, err
		}
		n++
	}
	return n, err
}

// Tasks answers a query, in its order; ties are broken by created_at and id,
// in the same direction.
func (c *Catalog) Tasks(_ context.Context, q TaskQuery) ([]Task, error) {
	compare, err := taskOrder(q)
	if err != nil {
		return nil, err
	}
	var list []Task
	var after Task
	c.store.read(func(s *state) {
		after = s.tasks[q.Marker]
		for _, t := range s.tasks {
			if q.matches(t) {
				list = append(list, t.Clone())
			}
		}
	})
	if q.Marker != "" {
		if after.ID == "" || !q.Viewer.sees(after) {
			return nil, fmt.Errorf("catalog: list after task %s: %w", q.Marker, ErrMarker)
		}
		list = slices.DeleteFunc(list, func(t Task) bool { return compare(t, after) <= 0 })
	}
	slices.SortFunc(list, compare)
	if q.Limit > 0 && len(list) > q.Limit {
		list = list[:q.Limit]
	}
	return list, nil
}

func (v Viewer) sees(t Task) bool { return v.Admin || v.Project != "" && t.Owner == v.Project }

func (q TaskQuery) matches(t Task) bool {
	return q.Viewer.sees(t) && (q.Type == "" || t.Type == q.Type) &&
		(q.Status == "" || t.Status == q.Status) && (q.ImageID == "" || t.ImageID == q.ImageID) &&
		(q.Owner == "" || t.Owner == q.Owner)
}

func taskOrder(q TaskQuery) (func(a, b Task) int, error) {
	var by func(a, b Task) int
	switch q.SortKey {
	case "", "created_at":
		by = func(a, b Task) int { return a.CreatedAt.Compare(b.CreatedAt) }
	case "updated_at":
		by = func(a, b Task) int { return a.UpdatedAt.Compare(b.UpdatedAt) }
	case "expires_at":
		by = func(a, b Task) int { return a.ExpiresAt.Compare(b.ExpiresAt) }
	case "id":
		by = func(a, b Task) int { return strings.Compare(a.ID, b.ID) }
	case "type":
		by = func(a, b Task) int { return strings.Compare(a.Type, b.Type) }
	case "status":
		by = func(a, b Task) int { return cmp.Compare(a.Status, b.Status) }
	default:
		return nil, fmt.Errorf("catalog: sort tasks by %q: %w", q.SortKey, fs.ErrInvalid)
	}
	return func(a, b Task) int {
		if !q.Asc {
			a, b = b, a
		}
		return cmp.Or(by(a, b), a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	}, nil
}
