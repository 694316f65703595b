//go:build integration

package bench

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
	"github.com/seed-478a8fee/platter/integration/servers"
)

const glanceName = "glance"

// Sizes of the API's benchmark, which the environment may change: MiB of the
// image that is sent, images in the catalog that is large.
func uploadSize() int64 { return int64(number("BENCH_UPLOAD", 1024)) << 20 }
func manyImages() int   { return number("BENCH_IMAGES", 100_000) }

// crowd is how many uploads go on at once where memory is measured, and
// crowdSize how large each is.
const (
	crowd     = 64
	crowdSize = 16 << 20
)

//go:embed fill-glance.py
var fillGlance []byte

// An apiJob is what is done with both sides by turns. It returns a figure.
type apiJob struct {
	name string
	unit string
	more bool // more of it is better
	run  func(t testing.TB, s *apiSide) float64
}

// BenchmarkAPI is the Image API beside a real Glance of one process with a
// database of SQLite, both without authentication and with a file store on the
// same disk.
func BenchmarkAPI(b *testing.B) {
	gateway.Need(b, "glance-api", "python3")
	g := gateway.Start(b, "--log-level", "warn")
	real := servers.StartGlance(b, servers.GlanceConfig{File: true})
	sides := [2]*apiSide{newAPISide(b, ourName, g.URL, g.PID()), newAPISide(b, glanceName, real.URL, real.Process.PID())}
	t := tables.table(title("The Image API beside Glance", "file stores on one disk, no authentication; Glance "+version()+" is one process with SQLite"), "what", "unit", ourName, glanceName, "times better")
	for _, s := range sides {
		for range 30 {
			s.create(b)
		}
		s.sent = s.create(b)
		s.upload(b, s.sent, uploadSize())
	}
	for _, j := range apiJobs() {
		j.contest(b, t, sides)
	}
	n := manyImages()
	sides[0].fill(b, n)
	script := filepath.Join(b.TempDir(), "fill.py")
	if err := os.WriteFile(script, fillGlance, 0o600); err != nil {
		b.Fatal(err)
	}
	tool(b, "python3", script, real.Database, strconv.Itoa(n))
	for _, j := range listJobs(n) {
		j.contest(b, t, sides)
	}
}

// apiJobs are those on a catalog that is nearly empty.
func apiJobs() []apiJob {
	return []apiJob{
		{"list of 25", "requests/s", true, func(t testing.TB, s *apiSide) float64 {
			return s.rate(t, func() { s.must(t, "GET", "/v2/images?limit=25", "", nil, 0, 200) })
		}},
		{"show", "requests/s", true, func(t testing.TB, s *apiSide) float64 {
			return s.rate(t, func() { s.must(t, "GET", "/v2/images/"+s.sent, "", nil, 0, 200) })
		}},
		{"create", "requests/s", true, func(t testing.TB, s *apiSide) float64 { return s.rate(t, func() { s.create(t) }) }},
		{fmt.Sprintf("upload of %d MiB", uploadSize()>>20), "MiB/s", true, func(t testing.TB, s *apiSide) float64 {
			id := s.create(t)
			began := time.Now()
			s.upload(t, id, uploadSize())
			speed := float64(uploadSize()>>20) / time.Since(began).Seconds()
			s.must(t, "DELETE", "/v2/images/"+id, "", nil, 0, 204)
			return speed
		}},
		{fmt.Sprintf("download of %d MiB", uploadSize()>>20), "MiB/s", true, func(t testing.TB, s *apiSide) float64 {
			began := time.Now()
			if n := s.must(t, "GET", "/v2/images/"+s.sent+"/file", "", nil, 0, 200); n != uploadSize() {
				t.Fatalf("%s sent %d bytes", s.who, n)
			}
			return float64(uploadSize()>>20) / time.Since(began).Seconds()
		}},
		{fmt.Sprintf("most memory while %d clients upload %d MiB each", crowd, crowdSize>>20), "MiB", false, func(t testing.TB, s *apiSide) float64 { return s.crowded(t) }},
	}
}

// listJobs are those on a catalog of n images.
func listJobs(n int) []apiJob {
	var jobs []apiJob
	for _, q := range []struct{ what, query string }{
		{"the newest 25", "limit=25"}, {"25 by name", "limit=25&sort=name:asc"}, {"25 active ones", "limit=25&status=active"},
	} {
		for _, share := range []struct {
			name string
			q    float64
		}{{"median", 0.5}, {"p99", 0.99}} {
			jobs = append(jobs, apiJob{fmt.Sprintf("list of %s of %d images, %s", q.what, n, share.name), "ms", false, func(t testing.TB, s *apiSide) float64 {
				var took []float64
				s.rate(t, func() {
					began := time.Now()
					s.must(t, "GET", "/v2/images?"+q.query, "", nil, 0, 200)
					took = append(took, float64(time.Since(began).Microseconds())/1000)
				})
				return quantile(took, share.q)
			}})
		}
	}
	return jobs
}

// contest runs a job on both sides by turns, the other one first every other
// time, and adds a row.
func (j apiJob) contest(t testing.TB, to *table, sides [2]*apiSide) {
	t.Helper()
	figures := map[*apiSide][]float64{}
	for round := range rounds() {
		order := slices.Clone(sides[:])
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			figures[s] = append(figures[s], j.run(t, s))
		}
	}
	ours, theirs := figures[sides[0]], figures[sides[1]]
	better := ratio(ours, theirs)
	if !j.more {
		better = ratio(theirs, ours)
	}
	to.row(j.name, j.unit, figure(median(ours)), figure(median(theirs)), figure(better))
}

// fill makes n images.
func (s *apiSide) fill(t testing.TB, n int) {
	t.Helper()
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	var done sync.WaitGroup
	errs := make(chan error, 16)
	for range 16 {
		done.Go(func() {
			for range work {
				if _, err := s.send("POST", "/v2/images", "application/json", strings.NewReader(newImage), int64(len(newImage)), 201, io.Discard); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	done.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
}

// crowded uploads many images at once and returns the most memory that took,
// in MiB.
func (s *apiSide) crowded(t testing.TB) float64 {
	t.Helper()
	var ids []string
	for range crowd {
		ids = append(ids, s.create(t))
	}
	// From here on the kernel's high-water mark is that of this job.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	errs := make([]error, crowd)
	for i, id := range ids {
		done.Go(func() {
			_, errs[i] = s.send("PUT", "/v2/images/"+id+"/file", "application/octet-stream", body(crowdSize), crowdSize, 204, io.Discard)
		})
	}
	done.Wait()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	for _, e := range append(errs, err) {
		if e != nil {
			t.Fatal(e)
		}
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		s.must(t, "DELETE", "/v2/images/"+id, "", nil, 0, 204)
	}
	return kib / 1024
}

// body is size bytes that no store makes smaller and no format knows.
func body(size int64) io.Reader {
	piece := make([]byte, 1<<20)
	noise(piece, uint64(size))
	all := make([]io.Reader, 0, size>>20)
	for range size >> 20 {
		all = append(all, bytes.NewReader(piece))
	}
	return io.MultiReader(all...)
}

// version says which Glance it is beside, for the head of the table.
func version() string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "glance-api").Output()
	if err != nil {
		return "of unknown version"
	}
	return string(out)
}
