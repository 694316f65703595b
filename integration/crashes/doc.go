// Package crashes kills gateways, stores and machines while a model watches
// what they promised: overlays in real stores, written by a client that
// remembers every request, and looked at after each crash.
//
// There are two promises, and a check for each (see history). A disk keeps
// every write that was acknowledged before a flush was, and each sector has
// one of the contents that it was given since. A log of objects keeps more:
// what it has is what all writes made of the disk at one moment of their
// order, also where a machine is lost and no flush counts any more.
//
// What kill -9 leaves is all that was written, synced or not. For a loss of
// power the files of a log's journal are changed after a kill as the disk may
// have them then (see loss), many times from one kill, each time with the
// catalog and the bucket of that moment.
package crashes
