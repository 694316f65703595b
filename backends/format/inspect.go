package format

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
)

// A Refusal is the error of an upload that must not become an image.
type Refusal struct {
	Declared string // the disk_format that the upload should have
	Found    string // what it looks like; "": nothing we know
	Reason   string
}

// Error names what was declared, what was found, and the reason.
func (r *Refusal) Error() string {
	found := r.Found
	if found == "" {
		found = "no known format"
	}
	return fmt.Sprintf("image refused: declared as %s, looks like %s: %s", r.Declared, found, r.Reason)
}

// An InspectorConfig says what an upload is declared to be, and how strict to
// be about it. Whatever the settings, an upload that refers to other files or
// that looks like several formats at once is refused.
type InspectorConfig struct {
	// Declared is the disk_format. "": not known; the Verdict tells.
	Declared string

	// Container is the container_format. Only what lies bare ("bare", "" and
	// the ami family) is looked into.
	Container string

	// RequireMatch refuses what is not of the declared format. Formats
	// without a signature (raw, ami, ari, aki) match everything, except that
	// the ami family must not look like something else.
	RequireMatch bool

	// Strict refuses, declared as raw, what looks like any image format.
	Strict bool
}

// A Verdict is what an Inspector saw.
type Verdict struct {
	Format      string   // what the image is; the declared format where bytes cannot tell
	Matches     []string // the formats that it looks like, "gpt" (or MBR) included
	VirtualSize int64    // bytes of the disk; -1: unknown
}

const (
	headMax    = 1<<20 + 64<<10 // covers the longest descriptor of a vmdk
	tailMax    = 1536           // footers of vmdk and vhd
	captureMax = 1 << 20        // metadata of a vhdx
	pieceMax   = 64 << 10       // looked at between two looks
)

// An Inspector watches an upload go by. It is an io.Writer that keeps only a
// few parts, at most 3 MiB. Once it is sure that the upload must be refused,
// Write and Finish return a *Refusal.
type Inspector struct {
	cfg     InspectorConfig
	ev      evidence
	found   []finding // one for each detector
	looked  int       // length of the head at the last look
	refused error
}

type finding struct {
	answer  answer
	checked bool
	size    int64
}

// NewInspector returns an Inspector for one upload.
func NewInspector(cfg InspectorConfig) *Inspector {
	if cfg.Declared == "vpc" {
		cfg.Declared = "vhd"
	}
	in := &Inspector{cfg: cfg, found: make([]finding, len(detectors()))}
	for i := range in.found {
		in.found[i].size = -1
	}
	return in
}

// transparent reports whether the bytes are the disk itself, not a container.
func (in *Inspector) transparent() bool {
	switch in.cfg.Container {
	case "", "bare", "ami", "ari", "aki":
		return true
	}
	return false
}

// Write looks at the next bytes of the upload.
func (in *Inspector) Write(p []byte) (int, error) {
	if in.refused != nil {
		return 0, in.refused
	}
	if !in.transparent() {
		in.ev.total += int64(len(p))
		return len(p), nil
	}
	for n := 0; n < len(p); {
		piece := p[n:min(len(p), n+pieceMax)]
		if len(in.ev.head) < headMax || in.ev.capturing() {
			in.ev.take(piece)
		} else {
			piece = p[n:] // nothing but the tail is of interest any more
			in.ev.take(piece)
		}
		n += len(piece)
		if err := in.look(false); err != nil {
			return n - len(piece), err
		}
	}
	return len(p), nil
}

// Finish says that the upload is whole.
func (in *Inspector) Finish() (Verdict, error) {
	if in.refused != nil {
		return Verdict{}, in.refused
	}
	if !in.transparent() {
		return Verdict{Format: in.cfg.Declared, VirtualSize: -1}, nil
	}
	in.ev.done = true
	if err := in.look(true); err != nil {
		return Verdict{}, err
	}
	return in.verdict(), nil
}

// look asks all detectors again, if there is anything new for them.
func (in *Inspector) look(done bool) error {
	if !done && len(in.ev.head) == in.looked && !in.ev.captured() {
		return nil
	}
	in.looked = len(in.ev.head)
	for i, d := range detectors() {
		f := &in.found[i]
		if f.answer == later {
			f.answer = d.match(&in.ev)
		}
		if f.answer != yes || f.checked {
			continue
		}
		if d.name == "gpt" && in.cfg.Declared != "gpt" {
			f.checked = true // how a raw disk boots is its own business
			continue
		}
		size, answer, reason := d.check(&in.ev)
		if reason != "" {
			return in.refuse(d.name, reason)
		}
		if answer == yes {
			f.checked, f.size = true, size
		}
	}
	return in.judge(done)
}

func (in *Inspector) refuse(found, reason string) error {
	in.refused = &Refusal{Declared: in.declared(), Found: found, Reason: reason}
	return in.refused
}

func (in *Inspector) declared() string {
	if in.cfg.Declared == "" {
		return "anything"
	}
	return in.cfg.Declared
}

// matches returns the names of what was found so far.
func (in *Inspector) matches() []string {
	var names []string
	for i, d := range detectors() {
		if in.found[i].answer == yes {
			names = append(names, d.name)
		}
	}
	return names
}

// distinct is names without a partition table where one belongs: on a disk
// within a fixed vhd, and on an iso that also boots from a stick.
func distinct(names []string) []string {
	if slices.Contains(names, "iso") || slices.Contains(names, "vhd") {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "gpt" })
	}
	return names
}

// judge compares what was found with what was declared. Before the end it
// refuses only what nothing to come can make good.
func (in *Inspector) judge(done bool) error {
	names := distinct(in.matches())
	if len(names) > 1 && (done || !slices.Contains(names, "gpt")) {
		return in.refuse(strings.Join(names, " and "), "a file that several formats claim")
	}
	found := strings.Join(names, "")
	switch in.cfg.Declared {
	case "":
		return nil
	case "raw":
		if in.cfg.Strict && found != "" && found != "gpt" {
			return in.refuse(found, "the strict setting takes no image of another format as raw")
		}
		return nil
	case "ami", "ari", "aki", "ploop":
		if in.cfg.RequireMatch && found != "" && found != in.cfg.Declared && (done || found != "gpt") {
			return in.refuse(found, "the content is of another format; correct disk_format")
		}
		return nil
	}
	if !in.cfg.RequireMatch {
		return nil
	}
	hopeless := found != "" && found != in.cfg.Declared && found != "gpt" || in.answer(in.cfg.Declared) == no
	if hopeless || done && found != in.cfg.Declared {
		return in.refuse(found, "the content is not of the declared format; correct disk_format")
	}
	return nil
}

// answer says what is known of one format. What has no detector cannot be.
func (in *Inspector) answer(name string) answer {
	for i, d := range detectors() {
		if d.name == name {
			return in.found[i].answer
		}
	}
	return no
}

func (in *Inspector) verdict() Verdict {
	v := Verdict{Format: in.cfg.Declared, Matches: in.matches(), VirtualSize: -1}
	found := strings.Join(distinct(v.Matches), "")
	if v.Format == "" {
		if v.Format = found; found == "" || found == "gpt" || found == "luks" {
			v.Format = "raw"
		}
	}
	switch v.Format {
	case "raw", "ami", "ari", "aki", "gpt":
		v.VirtualSize = in.ev.total
		return v
	}
	for i, d := range detectors() {
		if d.name == v.Format && in.found[i].answer == yes {
			v.VirtualSize = in.found[i].size
		}
	}
	return v
}

// Verify looks deeply into the whole file r of the format called name, after
// the upload: whatever its metadata refers to must be there. A bad file is a
// *Refusal, any other error is one of reading. Formats that cannot be opened
// yet pass.
func Verify(ctx context.Context, name string, r block.Reader) error {
	if name != "qcow2" {
		return nil
	}
	err := qcow2.Verify(ctx, r)
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnsupported) {
		return &Refusal{Declared: name, Found: name, Reason: err.Error()}
	}
	return err
}
