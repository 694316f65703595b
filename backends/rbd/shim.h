// A shim over librbd's asynchronous calls. librbd runs op_done on a thread of
// its own when a request has ended; that only pushes the op on a list without
// locks and, if the list was empty, raises an eventfd, which Go's poller waits
// for like for any socket. So no thread of Go blocks in C for a request, and
// no thread of C ever enters Go.

#include <errno.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct platter_queue;

typedef struct platter_op {
	struct platter_op *next;
	struct platter_queue *queue;
	int64_t result;
	uint32_t slot;
} platter_op;

typedef struct platter_queue {
	_Atomic(platter_op *) done;
	int fd;
	platter_op ops[];
} platter_queue;

enum { OP_READ, OP_WRITE, OP_DISCARD, OP_ZERO, OP_ZERO_THICK, OP_FLUSH };

static inline platter_queue *queue_new(uint32_t slots)
{
	platter_queue *q = calloc(1, sizeof *q + slots * sizeof *q->ops);
	if (!q)
		return NULL;
	for (uint32_t i = 0; i < slots; i++) {
		q->ops[i].queue = q;
		q->ops[i].slot = i;
	}
	q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (q->fd < 0) {
		free(q);
		return NULL;
	}
	return q;
}

static inline void op_done(rbd_completion_t c, void *arg)
{
	platter_op *op = arg;
	platter_queue *q = op->queue;
	op->result = rbd_aio_get_return_value(c);
	rbd_aio_release(c);
	platter_op *head = atomic_load(&q->done);
	do
		op->next = head;
	while (!atomic_compare_exchange_weak(&q->done, &head, op));
	if (!head) {
		uint64_t one = 1;
		ssize_t n = write(q->fd, &one, sizeof one);
		(void)n; // the counter cannot be full: it is read before it is raised again
	}
}

// queue_take moves what has ended into two arrays that have room for every
// slot, and returns how many there are.
static inline int queue_take(platter_queue *q, uint32_t *slots, int64_t *results)
{
	int n = 0;
	platter_op *next, *op = atomic_exchange(&q->done, NULL);
	for (; op; op = next, n++) {
		next = op->next; // the slot may be used again once it is told
		slots[n] = op->slot;
		results[n] = op->result;
	}
	return n;
}

// op_submit hands a request to librbd, which c is told of. After anything but 0
// it has never begun, and c is gone.
static inline int op_submit(rbd_completion_t c, rbd_image_t image, int kind, uint64_t off, uint64_t n, char *p)
{
	int r;
	switch (kind) {
	case OP_READ:
		r = rbd_aio_read(image, off, n, p, c);
		break;
	case OP_WRITE:
		r = rbd_aio_write(image, off, n, p, c);
		break;
	case OP_DISCARD:
		r = rbd_aio_discard(image, off, n, c);
		break;
	case OP_ZERO:
		r = rbd_aio_write_zeroes(image, off, n, c, 0, 0);
		break;
	case OP_ZERO_THICK:
		r = rbd_aio_write_zeroes(image, off, n, c, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0);
		break;
	case OP_FLUSH:
		r = rbd_aio_flush(image, c);
		break;
	default:
		r = -EINVAL;
	}
	if (r < 0)
		rbd_aio_release(c);
	return r;
}

// op_start hands a request to librbd. After 0 it ends in op_done; after
// anything else it has never begun.
static inline int op_start(platter_queue *q, uint32_t slot, rbd_image_t image, int kind, uint64_t off, uint64_t n, char *p)
{
	rbd_completion_t c;
	int r = rbd_aio_create_completion(&q->ops[slot], op_done, &c);
	if (r < 0)
		return r;
	return op_submit(c, image, kind, off, n, p);
}

// op_wait is a whole request: it returns when that has ended. The thread that
// waits is woken by the one that has the answer, and by nobody in between.
static inline int64_t op_wait(rbd_image_t image, int kind, uint64_t off, uint64_t n, char *p)
{
	rbd_completion_t c;
	int64_t r = rbd_aio_create_completion(NULL, NULL, &c);
	if (r < 0)
		return r;
	r = op_submit(c, image, kind, off, n, p);
	if (r < 0)
		return r;
	rbd_aio_wait_for_complete(c);
	r = rbd_aio_get_return_value(c);
	rbd_aio_release(c);
	return r;
}

typedef struct {
	uint8_t *bits;
	uint64_t unit;
} platter_map;

static inline int map_run(uint64_t off, size_t n, int exists, void *arg)
{
	platter_map *m = arg;
	if (!exists || !n)
		return 0;
	for (uint64_t i = off / m->unit; i <= (off + n - 1) / m->unit; i++)
		m->bits[i / 8] |= 1 << i % 8;
	return 0;
}

// image_map sets the bit of each unit of bytes, of [off, off+n), in which
// there is data. Bit 0 is that of byte 0 of the image.
static inline int image_map(rbd_image_t image, uint64_t off, uint64_t n, int parent, int whole, uint64_t unit, uint8_t *bits)
{
	platter_map m = {bits, unit};
	return rbd_diff_iterate2(image, NULL, off, n, parent, whole, map_run, &m);
}

typedef struct {
	uint8_t *bits;
	uint64_t from, to, unit;
} platter_changes;

// changed_run marks what was written as well as what was taken away.
static inline int changed_run(uint64_t off, size_t n, int exists, void *arg)
{
	platter_changes *c = arg;
	uint64_t end = off + n < c->to ? off + n : c->to;
	if (off < c->from)
		off = c->from;
	if (off >= end)
		return 0;
	for (uint64_t i = (off - c->from) / c->unit; i <= (end - 1 - c->from) / c->unit; i++)
		c->bits[i / 8] |= 1 << i % 8;
	return 0;
}

// image_changes sets the bit of each unit of bytes, of [off, off+n), that
// changed since a snapshot. Bit 0 is that of byte off.
static inline int image_changes(rbd_image_t image, const char *since, uint64_t off, uint64_t n, uint64_t unit, uint8_t *bits)
{
	platter_changes c = {bits, off, off + n, unit};
	return rbd_diff_iterate2(image, since, off, n, 0, 0, changed_run, &c);
}

static inline int progress_told(uint64_t done, uint64_t total, void *arg)
{
	_Atomic uint64_t *told = arg;
	atomic_store(told, done);
	atomic_store(told + 1, total);
	return 0;
}

// image_flatten copies the parent into its clone; told hears how many steps of
// how many are done.
static inline int image_flatten(rbd_image_t image, uint64_t *told)
{
	return rbd_flatten_with_progress(image, progress_told, told);
}

static inline int progress_ignored(uint64_t done, uint64_t total, void *arg)
{
	return 0;
}

static inline int image_resize(rbd_image_t image, uint64_t size)
{
	return rbd_resize2(image, size, true, progress_ignored, NULL);
}

// image_lockers returns how many clients have locked the image, or what stands
// in the way of telling.
static inline int image_lockers(rbd_image_t image)
{
	char tag[1024], clients[4096], cookies[4096], addrs[4096];
	size_t tag_n = sizeof tag, clients_n = sizeof clients, cookies_n = sizeof cookies, addrs_n = sizeof addrs;
	int exclusive;
	return rbd_list_lockers(image, &exclusive, tag, &tag_n, clients, &clients_n, cookies, &cookies_n, addrs, &addrs_n);
}

static inline void settled(rados_completion_t c, void *arg)
{
}

// io_settle returns when librados has returned from the callbacks that it was
// in. It runs them one after the other, and so this last one after them.
static inline int io_settle(rados_ioctx_t io)
{
	rados_completion_t c;
	uint64_t size;
	time_t changed;
	int r = rados_aio_create_completion2(NULL, settled, &c);
	if (r < 0)
		return r;
	r = rados_aio_stat(io, "rbd_directory", c, &size, &changed);
	if (r == 0)
		rados_aio_wait_for_complete_and_cb(c);
	rados_aio_release(c);
	return r;
}
