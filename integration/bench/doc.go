// Package bench compares the gateway with its peers on real servers, for
// "make bench". It has benchmarks only, so no test fails because a machine is
// slow:
//
//   - reading an image of a Ceph pool, beside "qemu-nbd rbd:";
//   - writing to overlays that are logs of objects, beside clones in Ceph and
//     beside qemu-nbd on a local qcow2 file;
//   - the time from asking for an attachment to the first bytes of the disk.
//
// All sides of a comparison run in turns within one run, several rounds of a
// few seconds. A figure is the median of its rounds, a ratio the median of the
// ratios of each round: a neighbour on the machine slows a round down and not
// one side. The tables go to the standard output, and to bin/bench.txt.
//
// BENCH_ROUNDS and BENCH_SECONDS set how many rounds there are
// and how long a job of one is.
package bench
