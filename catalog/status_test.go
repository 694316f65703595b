package catalog

import "testing"

func TestStatusTable(t *testing.T) {
	all := []Status{StatusQueued, StatusSaving, StatusUploading, StatusImporting, StatusActive, StatusDeactivated,
		StatusKilled, StatusPendingDelete, StatusDeleted}
	// One row for each status to come from, one column for each to go to, in
	// the order above.
	table := []string{
		"=xxxx...x", // queued
		"x=..x.x.x", // saving
		"x.=x....x", // uploading
		"x..=x...x", // importing
		"....=x.xx", // active
		"....x=..x", // deactivated
		"......=.x", // killed
		"....x..=x", // pending_delete
		"........=", // deleted
	}
	for i, from := range all {
		for j, to := range all {
			if want := table[i][j] != '.'; from.CanBecome(to) != want {
				t.Errorf("%s can become %s: %v, want %v", from, to, !want, want)
			}
		}
		if !from.Valid() {
			t.Errorf("%s is not valid", from)
		}
	}
	if Status("").Valid() || Status("dancing").Valid() {
		t.Error("a status that is none is valid")
	}
}
