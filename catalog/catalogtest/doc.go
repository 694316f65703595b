// Package catalogtest tests any catalog.KV, and a Catalog on it.
//
// A KV's own test calls Test with a function that returns a new, empty KV:
//
//	func TestKV(t *testing.T) {
//		catalogtest.Test(t, func(testing.TB) catalog.KV { return memkv.New() })
//	}
//
// A bug found in any KV becomes a case here, so that all are checked for it.
// Faulty is a KV that fails on demand, for tests of what stands above.
package catalogtest

import (
	"context"
	"testing"

	"github.com/seed-478a8fee/platter/catalog"
)

// An Open returns a new, empty KV, which is closed when the test ends.
type Open func(testing.TB) catalog.KV

// A Compacter is a KV that can be told to forget. The cases about lost
// history need it; a KV without it skips them.
type Compacter interface {
	// Compact forgets the changes up to revision rev.
	Compact(ctx context.Context, rev int64) error
}

// Test runs everything.
func Test(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"GetAndCommit": testGetAndCommit,
		"Conditions":   testConditions,
		"Limits":       testLimits,
		"List":         testList,
		"ListIsFrozen": testListIsFrozen,
		"Watch":        testWatch,
		"WatchResumes": testWatchResumes,
		"Compacted":    testCompacted,
		"Races":        testRaces,
		"Canceled":     testCanceled,
		"Life":         testLife,
		"Uploads":      testUploads,
		"InUse":        testInUse,
		"Overlays":     testOverlays,
		"Members":      testMembers,
		"Tasks":        testTasks,
		"TwoGateways":  testTwoGateways,
		"OneWriter":    testOneWriter,
		"Changes":      testChanges,
		"Reload":       testReload,
		"Outage":       testOutage,
		"Backup":       testBackup,
		"Leases":       testLeases,
		"LeaseEnds":    testLeaseEnds,
		"Gateways":     testGateways,
		"SameGateway":  testSameGateway,
		"Lapse":        testLapse,
		"Owners":       testOwners,
		"Loss":         testLoss,
		"Files":        testFiles,
		"TakeRace":     testTakeRace,
		"TakeLate":     testTakeLate,
		"Heads":        testHeads,
		"HeadRace":     testHeadRace,
		"LostAnswers":  testLostAnswers,
		"HeadGarbage":  testHeadGarbage,
		"Resize":       testResize,
		"Attempts":     testAttempts,
		"Copies":       testCopies,
		"Requeue":      testRequeue,
		"Namespaces":   testNamespaces,
		"AbandonDead":  testAbandonDead,
		"Parents":      testParents,
		"ParentRace":   testParentRace,
		"Traces":       testTraces,
		"BackupMore":   testBackupMore,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}
