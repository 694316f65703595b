package swift

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed-478a8fee/platter/backends"
)

// Abilities are what the server was seen to do.
type abilities struct {
	putNone   bool // If-None-Match: * holds on PUT
	getMatch  bool // If-Match holds on GET
	copy      bool
	static    bool // takes static manifests
	manifests bool // tells them again, and checks what is in them
	told      []backends.Capability
}

// Capabilities returns what the server was seen to do when it was opened.
func (s *Store) Capabilities() []backends.Capability { return slices.Clone(s.can.told) }

const (
	// scratchName begins the names of the objects that are there for the
	// moment of a probe.
	scratchName = "platter-probe-"
	scratchText = "Platter tries what this server can do. This object can be deleted.\n"

	// tidyWithin is how long the deletion of scratch objects may take.
	tidyWithin = 30 * time.Second

	// staticParts is how many segments a static manifest may have, unless the
	// server was configured otherwise.
	staticParts = 1000
)

// A prober tries one ability after the other on a scratch object.
type prober struct {
	s    *Store
	name string
	can  abilities
}

// probe finds out what the server does. What a store cannot do without, to
// put, get a range and delete, is an error if it fails.
func (s *Store) probe(ctx context.Context) (can abilities, err error) {
	p := &prober{s: s, name: s.name(scratchName + strings.ToLower(rand.Text()))}
	if err := p.put(ctx, p.name, nil); err != nil {
		return abilities{}, s.explain(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyWithin)
		defer cancel()
		left := each(3, func(i int) error { return s.remove(ctx, s.cfg.Container, p.name+[]string{"", ".copy", ".static"}[i]) })
		if left != nil && err == nil {
			err = fmt.Errorf("delete the scratch object %s: %w", p.name, left)
		}
	}()
	if err := p.writes(ctx); err != nil {
		return abilities{}, err
	}
	if err := p.reads(ctx); err != nil {
		return abilities{}, err
	}
	p.copies(ctx)
	p.statics(ctx)
	return p.can, ctx.Err()
}

// tell records the outcome of one trial.
func (p *prober) tell(name string, ok bool, detail string) bool {
	if ok {
		detail = ""
	}
	p.can.told = append(p.can.told, backends.Capability{Name: name, OK: ok, Detail: detail})
	return ok
}

// put writes scratchText with headers besides.
func (p *prober) put(ctx context.Context, name string, header map[string]string) error {
	if header == nil {
		header = map[string]string{}
	}
	header["Content-Type"], header[uploadHeader] = "text/plain", p.name
	_, err := p.s.ask(ctx, p.s.reading(), request{method: http.MethodPut, container: p.s.cfg.Container, name: name,
		header: header, body: spoolOf([]byte(scratchText))})
	return err
}

// did tells what came of something that should have been refused.
func did(err error) string {
	if err == nil {
		return "ignored: the request was carried out"
	}
	if status := statusOf(err); status != 0 {
		return fmt.Sprintf("answered %d", status)
	}
	return err.Error()
}

func digestOf(text string) string {
	sum := md5.Sum([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (p *prober) writes(ctx context.Context) error {
	err := p.put(ctx, p.name, map[string]string{"If-None-Match": "*"})
	p.can.putNone = p.tell("if-none-match on put", refused(err), did(err))

	// A wrong digest is sent once: it would be tried again.
	resp, err := p.s.send(ctx, request{method: http.MethodPut, container: p.s.cfg.Container, name: p.name,
		header: map[string]string{"Etag": digestOf("other bytes"), uploadHeader: p.name}, body: spoolOf([]byte(scratchText))})
	if err == nil {
		resp.Body.Close()
	}
	p.tell("md5", statusOf(err) == http.StatusUnprocessableEntity, did(err)+": only the answer to a PUT is compared")

	st, err := p.s.head(ctx, p.s.reading(), p.s.cfg.Container, p.name)
	if err != nil {
		return p.s.explain(err)
	}
	if !p.tell("object metadata", st.upload == p.name, "") {
		return errors.New("the server keeps no metadata of objects: what a lost answer has done could not be found out")
	}
	return nil
}

// reads tries the reading of a range, which there is no store without.
func (p *prober) reads(ctx context.Context) error {
	seg := segment{container: p.s.cfg.Container, name: p.name, len: int64(len(scratchText)), total: int64(len(scratchText)), etag: digestOf(scratchText)}
	got, want := make([]byte, 20), []byte(scratchText[8:28])
	o := &object{store: p.s, name: p.name}
	if err := o.read(ctx, seg, got, 8); err != nil {
		return fmt.Errorf("ranges of objects cannot be read, which images need: %w", err)
	}
	if !p.tell("range on get", bytes.Equal(got, want), "") {
		return errors.New("a range of an object has other bytes than were written")
	}
	_, err := p.s.ask(ctx, p.s.reading(), request{method: http.MethodGet, container: p.s.cfg.Container, name: p.name,
		header: map[string]string{"Range": "bytes=8-27", "If-Match": `"` + digestOf("other bytes") + `"`}})
	p.can.getMatch = p.tell("if-match on get", refused(err), did(err)+": the ETag in the answer is compared")
	return nil
}

// copies tries a copy inside the server, and looks at what came of it.
func (p *prober) copies(ctx context.Context) {
	seg := segment{container: p.s.cfg.Container, name: p.name, total: int64(len(scratchText)), etag: digestOf(scratchText)}
	_, err := p.s.copyOne(ctx, p.name+".copy", "copied", seg, nil)
	p.can.copy = p.tell("copy", err == nil, fmt.Sprint(err))
}

// statics tries static manifests: whether they are taken, checked, and told
// again. That is asked on connections of their own, because some servers send
// a broken answer that would spoil the next one.
func (p *prober) statics(ctx context.Context) {
	manifest := func(digest string) *spool {
		return spoolOf(fmt.Appendf(nil, `[{"path":"/%s/%s","etag":"%s","size_bytes":%d}]`, p.s.cfg.Container, p.name, digest, len(scratchText)))
	}
	static := request{method: http.MethodPut, container: p.s.cfg.Container, name: p.name + ".static", alone: true,
		query: url.Values{"multipart-manifest": {"put"}}, header: map[string]string{}}
	once := patience{tries: 1}

	static.body = manifest(digestOf("other bytes"))
	_, err := p.s.ask(ctx, once, static)
	checked := p.tell("static manifests are checked", statusOf(err) >= 400 && statusOf(err) < 500, did(err))
	static.body = manifest(digestOf(scratchText))
	_, err = p.s.ask(ctx, once, static)
	p.can.static = p.tell("static manifests", err == nil, did(err))
	if err != nil {
		return
	}
	if !checked {
		// Ceph, which is not to be asked for manifests.
		p.tell("static manifests are told", false, "not asked for")
		return
	}
	_, body, err := p.s.fetch(ctx, once, request{method: http.MethodGet, container: p.s.cfg.Container, name: static.name, alone: true,
		query: url.Values{"multipart-manifest": {"get"}}})
	var parts []part
	if err == nil {
		err = json.Unmarshal(body, &parts)
	}
	p.can.manifests = p.tell("static manifests are told", err == nil && len(parts) == 1 && parts[0].Bytes == int64(len(scratchText)), fmt.Sprint(err))
}
