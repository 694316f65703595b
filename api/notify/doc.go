// Package notify tells the world outside what happens to images, as Glance
// does: the same events with the same payloads, in the envelope of
// oslo.messaging, to a message broker (AMQP 0.9.1), and to a webhook.
//
// # How an event comes about
//
// Most need no line of code at all. A Notifier is the catalog's Observer, so
// whatever writes an image, a member or a task by Create…, Update…, Delete…,
// BeginUpload, FinishUpload and so on is told of: image.create, image.update,
// image.prepare, image.upload, image.activate, image.delete, image.member.*,
// task.*. Everything else is one line where it happens, with the Notifier of
// api.Config, which may be nil:
//
//	s.cfg.Notify.Emit(ctx, "metadef_namespace.create", payload)
//
// The payload is anything that encoding/json writes. It never has locations,
// and nothing in it is a secret. Request id, user and project come from ctx.
//
// # What becomes of it
//
// Each place that events go to, a Sink, has a queue of its own in memory,
// bounded in events and bytes, and one goroutine that empties it. Emit never
// waits: what does not fit is dropped, counted, and said in the log once, until
// there is room again. A place that does not answer is tried again, with
// growing pauses, so that it gets in order what the queue still has. At the
// end, Close gives the queues some time to run empty.
//
// An event is sent at least once: a confirmation that was lost makes it go
// out twice, under the same message_id.
//
// Lock order: a queue's lock is the only one, and nothing is called under it.
package notify
