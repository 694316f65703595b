// Package importer brings bytes into images behind a task: from what was staged
// (glance-direct), from the web (web-download), or from a store that has them
// into others (copy-image).
//
// An import is a task in the catalog and a lock on its image, the property
// os_glance_import_task, taken in the transaction that moves the image from
// queued or uploading to importing. What remains to be done follows from the
// two records alone: the stores that the task names without those that have
// the image. So an import that a stop cut off goes on at the next start of its
// gateway, and one whose gateway is gone is taken over by another.
//
// The first store is filled from the source, and the others from the first.
// A copy counts when catalog.FinishCopy has added it; whatever else a crash
// leaves in a store is the sweeper's (package ingest).
//
// Staged bytes lie in a store of their own, usually a folder of one gateway.
// The property os_glance_stage_host, which clients never see, says whose.
package importer
