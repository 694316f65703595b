package rbd

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"time"
)

// Errors that only an RBD store has.
var (
	// ErrFenced is the error of whatever a writer does after another one has
	// taken over: its client is on the cluster's blocklist, or its lock is
	// gone. Nothing that it was told was written is lost by it; nothing more
	// will be written.
	ErrFenced = errors.New("another writer has taken over")

	// ErrLocked is the error of opening an overlay that somebody else has
	// open. Takeover fences that one.
	ErrLocked = errors.New("the image has another writer")

	// ErrUnknown is the error of a write that the cluster did not answer in
	// time: it may have landed, and may still land.
	ErrUnknown = errors.New("the write may or may not have happened")
)

// A Config says where a Store is and what it may do. Only Pool must be set.
type Config struct {
	// Pool holds the images; Namespace is the part of it, "" being the
	// default one, the only one that Glance knows.
	Pool, Namespace string

	// Conf is the cluster's ceph.conf. Default: where librados looks for it,
	// such as /etc/ceph/ceph.conf.
	Conf string

	// User is who we are, without "client.". Default: admin.
	User string

	// Keyring is the file with User's key. Default: where Conf says.
	Keyring string

	// Cluster is the cluster's name. Default: ceph.
	Cluster string

	// Timeout is how long one request to the cluster may take, in whole
	// seconds. Default: 30 s. Then it fails with syscall.ETIMEDOUT; without a limit librados waits for
	// ever.
	Timeout time.Duration

	// Parallel is how many requests are with the cluster at once: of all
	// objects of the Store, and of each overlay. Default: 64.
	Parallel int

	// Trash lets an object that has clones be deleted: it moves to the pool's
	// trash until the last clone is gone. Otherwise that is syscall.EBUSY.
	Trash bool

	// Logger hears what is worth knowing. Nil is silence.
	Logger *slog.Logger
}

func (c Config) defaults() (Config, error) {
	if c.Pool == "" {
		return c, fmt.Errorf("rbd: no pool is configured: %w", fs.ErrInvalid)
	}
	if c.Timeout < 0 || c.Parallel < 0 || c.Parallel > math.MaxUint16 {
		return c, fmt.Errorf("rbd: timeout %v, %d in parallel: %w", c.Timeout, c.Parallel, fs.ErrInvalid)
	}
	if c.User == "" {
		c.User = "admin"
	}
	if c.Cluster == "" {
		c.Cluster = "ceph"
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Parallel == 0 {
		c.Parallel = 64
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// A CloneConfig says what overlay to make. Only Key must be set.
type CloneConfig struct {
	// Key is the new overlay's.
	Key string

	// Parent is the key of the object that it is a clone of; "" for a bare
	// image, which lies over what the caller gives to its Delta.
	Parent string

	// Size is the disk's, in bytes. Default: the parent's. Beyond the parent
	// there are zeros; it cannot be smaller.
	Size int64
}

// A DeviceConfig says who opens an overlay.
type DeviceConfig struct {
	// Epoch is the writer's turn, as the catalog counts. One that is lower
	// than the highest that ever had the overlay open is ErrFenced.
	Epoch int64

	// Takeover fences whoever has it open, or died with it open. It is for
	// those to whom the catalog has given this Epoch.
	Takeover bool
}

// A Snapshot is a state of an overlay that is kept.
type Snapshot struct {
	ID      string
	Name    string
	Created time.Time
	Size    int64 // of the disk, in bytes
}
