package format

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// matchVmdk knows sparse extents and, to refuse them, those of old ESX
// servers and bare descriptors, which are text and name other files.
func matchVmdk(e *evidence) answer {
	if !e.have(512) {
		return later
	}
	return truth(e.is(0, "KDMV") || e.is(0, "COWD") || vmdkText(e.at(0, 512)))
}

// vmdkText reports whether a text is one that tools take for a descriptor:
// comments and empty lines, then a version.
func vmdkText(head []byte) bool {
	for line := range bytes.Lines(head) {
		text := strings.ToLower(strings.TrimSpace(string(line)))
		switch {
		case strings.HasPrefix(text, "# disk descriptorfile"), strings.HasPrefix(text, "version="):
			return true
		case text != "" && text[0] != '#':
			return false
		}
	}
	return false
}

// maxDescriptor is the longest embedded descriptor, in sectors.
const maxDescriptor = 2047

func checkVmdk(e *evidence) (int64, answer, string) {
	if !e.is(0, "KDMV") {
		return -1, yes, "a description whose data is in other files, or an extent of an old server"
	}
	if reason := checkVmdkHeader(e.at(0, 512)); reason != "" {
		return -1, yes, reason
	}
	sectors := int(min(e.le64(36), maxDescriptor))
	if !e.have(512 * (1 + sectors)) {
		return -1, later, ""
	}
	text := e.head[512:min(len(e.head), 512*(1+sectors))]
	kind, reason := checkDescriptor(text)
	if reason != "" {
		return -1, yes, reason
	}
	if e.le64(56) == 1<<64-1 { // the real header is a footer
		if kind != "streamoptimized" {
			return -1, yes, "a footer in a vmdk that is not streamOptimized"
		}
		if !e.done {
			return -1, later, ""
		}
		if reason := checkFooter(e); reason != "" {
			return -1, yes, reason
		}
	}
	return int64(e.le64(12)) * 512, yes, ""
}

func checkVmdkHeader(b []byte) string {
	e := evidence{head: b}
	grain, capacity := e.le64(20), e.le64(12)
	switch {
	case e.le32(4) < 1 || e.le32(4) > 3:
		return "unknown version"
	case capacity > 1<<50:
		return "impossible disk size"
	case grain < 8 || grain&(grain-1) != 0 || grain > 1<<16:
		return "impossible grain size"
	case e.le32(44) == 0 || e.le32(44) > 4096:
		return "impossible grain tables"
	case e.le64(28) != 1 || e.le64(36) == 0 || e.le64(36) > maxDescriptor:
		return "no descriptor in the second sector"
	}
	return ""
}

// checkFooter compares the header at the end of a stream with the one at the
// start: what was checked there must be what is used.
func checkFooter(e *evidence) string {
	if e.total < tailMax+512 {
		return "cut off"
	}
	footer := e.tail[512:1024]
	start := bytes.Clone(e.at(0, 512))
	copy(start[56:64], footer[56:64]) // the place of the directory is what the footer is for
	start[72], footer = footer[72], bytes.Clone(footer)
	if !bytes.Equal(start, footer) {
		return "the header at the end is not that at the start: cut off, or made to mislead"
	}
	return ""
}

// checkDescriptor returns the createType, in lower case, or why the
// descriptor is refused: it may describe nothing but its own file.
func checkDescriptor(b []byte) (kind, reason string) {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	extents := 0
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(string(line))
		for _, c := range []byte(text) {
			if c >= 0x80 || c < ' ' && c != '\t' {
				return "", "a descriptor that is not ASCII"
			}
		}
		lower := strings.ToLower(text)
		word, _, _ := strings.Cut(lower, " ")
		switch word {
		case "rw", "rdonly", "noaccess":
			extents++
			if reason := checkExtent(text); reason != "" {
				return "", reason
			}
			continue
		}
		if reason := checkLine(lower, &kind); reason != "" {
			return "", reason
		}
	}
	switch {
	case kind != "monolithicsparse" && kind != "streamoptimized":
		return "", fmt.Sprintf("createType %q: only monolithicSparse and streamOptimized keep all data in one file", kind)
	case extents != 1:
		return "", fmt.Sprintf("%d extents instead of one", extents)
	case strings.Count(strings.ToLower(string(b)), "createtype") != 1:
		return "", "createType named more than once"
	}
	return kind, ""
}

// checkLine checks a line that is no extent.
func checkLine(lower string, kind *string) string {
	if lower == "" || lower[0] == '#' {
		return ""
	}
	key, value, ok := strings.Cut(lower, "=")
	if !ok {
		return fmt.Sprintf("unknown line %.60q in the descriptor", lower)
	}
	key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"`)
	switch key {
	case "createtype":
		*kind = value
	case "parentfilenamehint", "changetrackpath", "digestfilename":
		return fmt.Sprintf("another file named in the descriptor (%s)", key)
	case "parentcid":
		if value != "ffffffff" {
			return "a parent image, which is not part of the upload"
		}
	}
	return ""
}

// checkExtent checks a line like: RW 4096 SPARSE "disk.vmdk".
func checkExtent(line string) string {
	fields := strings.SplitN(strings.Join(strings.Fields(line), " "), " ", 4)
	if len(fields) != 4 {
		return fmt.Sprintf("extent %.80q", line)
	}
	_, err := strconv.ParseUint(fields[1], 10, 50)
	name, ok := strings.CutPrefix(fields[3], `"`)
	name, closed := strings.CutSuffix(name, `"`)
	switch {
	case err != nil || !ok || !closed || name == "" || strings.Contains(name, `"`):
		return fmt.Sprintf("extent %.80q", line)
	case !strings.EqualFold(fields[2], "SPARSE"):
		return fmt.Sprintf("extent of type %.20q, whose data is in another file", fields[2])
	case strings.ContainsAny(name, `/\:`):
		return fmt.Sprintf("extent with a path, %.80q", name)
	}
	return ""
}
