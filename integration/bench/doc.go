// Package bench compares the gateway with its peers on real servers, for
// "make bench". It has benchmarks only, so no test fails because a machine is
// slow:
//
//   - reading an image of a Ceph pool, beside "qemu-nbd rbd:";
//   - writing to overlays that are logs of objects, beside clones in Ceph and
//     beside qemu-nbd on a local qcow2 file;
//   - the time from asking for an attachment to the first bytes of the disk;
//   - the NBD door beside qemu-nbd and nbdkit, on raw files, qcow2, compressed
//     qcow2 and overlays, and what is idle ("make bench-nbd");
//   - the Image API beside a real Glance ("make bench-api").
//
// All sides of a comparison run in turns within one run, several rounds of a
// few seconds. A figure is the median of its rounds, a ratio the median of the
// ratios of each round: a neighbour on the machine slows a round down and not
// one side. The tables go to the standard output, and to bin/bench.txt
// or the file in bin that BENCH_FILE names.
//
// BENCH_ROUNDS and BENCH_SECONDS set how many rounds there are and how long a
// job of one is, BENCH_UPLOAD and BENCH_IMAGES the MiB of the image that the API
// is sent and how many images its catalog has at last. Each load of the NBD door is a benchmark of its own, for a quick
// look at one of them:
//
//	BENCH_ROUNDS=3 BENCH_SECONDS=1 go test -tags integration,rbd,libnbd,pacific -run '^$' \
//		-bench NBD/zlib/1-MiB -benchtime 1x ./integration/bench
package bench
