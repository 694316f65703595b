package catalog

import (
	"maps"
	"time"
)

// A TaskStatus is where a task is in its life.
type TaskStatus string

// The statuses of a task.
const (
	TaskPending    TaskStatus = "pending"
	TaskProcessing TaskStatus = "processing"
	TaskSuccess    TaskStatus = "success"
	TaskFailure    TaskStatus = "failure"
)

// Done tells whether the task has ended.
func (s TaskStatus) Done() bool { return s == TaskSuccess || s == TaskFailure }

// A Task is work that goes on after its request was answered.
type Task struct {
	ID        string
	Type      string
	Status    TaskStatus
	Owner     string // project; "": none
	ImageID   string
	RequestID string
	UserID    string
	Gateway   string // which runs it
	Message   string
	Input     map[string]any
	Result    map[string]any
	Progress  Progress
	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt time.Time // zero: never
	Revision  int64     // of the record; not stored
}

// Progress is how far a task has come, in bytes.
type Progress struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"` // 0: unknown
}

// Clone returns a copy whose maps are the caller's own. What lies deeper in
// Input and Result is shared and must not be changed.
func (t Task) Clone() Task {
	t.Input = maps.Clone(t.Input)
	t.Result = maps.Clone(t.Result)
	return t
}

// A TaskQuery selects tasks; a zero field selects all.
type TaskQuery struct {
	Viewer  Viewer // only a project's own tasks, unless Admin
	Type    string
	Status  TaskStatus
	ImageID string
	Owner   string
	SortKey string // created_at (default), updated_at, expires_at, id, type, status
	Asc     bool   // default: descending
	Marker  string // id of the last task seen
	Limit   int    // 0: no limit
}
