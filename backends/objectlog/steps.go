package objectlog

import "context"

// What Config.Steps hears of. Each is called in the goroutine that is about to
// do, or has just done, what it says, and with no lock held; while it waits,
// the log waits there. Those that are about an object are followed by a space
// and its key.
const (
	StepLoad      = "load"      // before the head is loaded, by Open
	StepLoaded    = "loaded"    // head, checkpoint and segments are read
	StepClaim     = "claim"     // before the head is committed under the new epoch
	StepClaimed   = "claimed"   // after; the log begins to work
	StepAppend    = "append"    // before a write or zeroing goes to the journal
	StepAppended  = "appended"  // after; it can be read
	StepWritten   = "written"   // before it is acknowledged, after Config.Gate
	StepSync      = "sync"      // before a flush waits for the journal's disk
	StepSynced    = "synced"    // after
	StepFlushed   = "flushed"   // before a flush is acknowledged, after Config.Gate
	StepPut       = "put"       // before an object is stored
	StepStored    = "stored"    // after
	StepCommit    = "commit"    // before the head is committed
	StepCommitted = "committed" // after
	StepApplied   = "applied"   // what was committed is read from the store
	StepTrim      = "trim"      // before the journal gives back space
	StepTrimmed   = "trimmed"   // after
)

// step tells Config.Steps. An error of it ends the log.
func (l *Log) step(ctx context.Context, name string) error {
	if l.cfg.Steps == nil {
		return nil
	}
	err := l.cfg.Steps(ctx, name)
	if err != nil {
		l.fail(err)
	}
	return err
}
