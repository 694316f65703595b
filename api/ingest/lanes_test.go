package ingest

import (
	"bytes"
	"io"
	"sync"
	"testing"
)

// A gate is a sink that lets nothing pass until it is opened.
type gate struct {
	open chan struct{}
	got  bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	return g.got.Write(p)
}

// TestChunksAreShared: many streams whose lanes lag hold no more than what is
// sure for each and what is spare for all, every one of them goes on, and they
// give back what they had.
func TestChunksAreShared(t *testing.T) {
	const streams = 2 * spareChunks / (bufferChunks - sureChunks)
	var from chunks
	data := bytes.Repeat([]byte("platter!"), (bufferChunks+3)*chunkSize/8)
	open := make(chan struct{})
	var all []*stream
	var sinks []*gate
	var fed sync.WaitGroup // each until it cannot go on
	var done sync.WaitGroup
	for range streams {
		g := &gate{open: open}
		s := newStream(&from, int64(len(data)), &lane{name: "slow", sink: g})
		all, sinks = append(all, s), append(sinks, g)
		fed.Add(1)
		done.Go(func() {
			var once sync.Once
			seen := 0
			n, err := s.copy(t.Context(), bytes.NewReader(data), func(p []byte) error {
				if seen++; seen == sureChunks {
					once.Do(fed.Done)
				}
				return nil
			})
			if err != nil || n != int64(len(data)) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	fed.Wait()
	if n := from.spare.Load(); n < 0 || n > spareChunks+streams {
		t.Errorf("%d spare chunks are used of %d", n, spareChunks)
	}
	close(open)
	done.Wait()
	for i, g := range sinks {
		if !bytes.Equal(g.got.Bytes(), data) {
			t.Errorf("stream %d brought %d bytes, or others", i, g.got.Len())
		}
		if made := all[i].made; made != 0 {
			t.Errorf("stream %d keeps %d chunks", i, made)
		}
	}
	if n := from.spare.Load(); n != 0 {
		t.Errorf("%d spare chunks are not given back", n)
	}
}

// TestChunksComeClean: a chunk that was cut short by one stream is whole for
// the next one.
func TestChunksComeClean(t *testing.T) {
	var from chunks
	for _, size := range []int{chunkSize + 5, 7, 3 * chunkSize} {
		data := bytes.Repeat([]byte{byte(size)}, size)
		var got bytes.Buffer
		s := newStream(&from, -1, &lane{name: "l", sink: &got})
		if n, err := s.copy(t.Context(), io.MultiReader(bytes.NewReader(data)), func([]byte) error { return nil }); err != nil || n != int64(size) || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("%d: %d bytes, %v", size, n, err)
		}
	}
}
