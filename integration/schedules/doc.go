// Package schedules looks for schedules of faults under which two gateways
// that share a catalog and a store break a promise of an object-log overlay.
//
// The gateways are real: package exports with its sessions, tenures and
// settling, the catalog with its leases and its index, the object log with its
// journal. What they stand on is in memory: one KV, one store, and for each
// gateway a disk that can lose power. They run in a bubble of testing/synctest,
// where time passes only when all of them wait.
//
// Everything that others can see, and everything that an object log says it is
// about to do, stops and waits for the scheduler. It chooses, from a seed, who
// goes on: so a gateway is stopped between any check and the next instruction
// while the other one runs, for as long as a lease or longer. It also cuts a
// gateway off from the catalog, from the store or from both, loses answers,
// lets requests arrive after their sender died, ends leases, and crashes and
// restarts gateways: with their disk, with what a loss of power leaves of it,
// or without it.
//
// Beside it a model knows what each client was told, and says what a disk may
// show. Its rules are in model_test.go.
package schedules
