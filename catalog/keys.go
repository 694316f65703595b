package catalog

import (
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"
)

// Prefixes of keys; doc.go has the table. This file is the only place where
// keys are put together and taken apart.
const (
	keySchema   = "meta/schema"
	keyRestore  = "meta/restore"  // there while a restore is under way
	keyRestored = "meta/restored" // when the last one ended
	preImage    = "img/"
	preDead     = "dead/"
	preMember   = "mem/"
	preUpload   = "upl/"
	preOverlay  = "ovl/"
	preAttach   = "att/"
	preHold     = "hold/"
	preRef      = "ref/"
	preTask     = "task/"
	preGarbage  = "gc/"
	preGateway  = "gw/"
	preHead     = "head/"
	preDirty    = "dirty/"
	preParent   = "par/"
	preTrace    = "trace/"

	preNamespace    = "md/"
	preResourceType = "mdtype/"

	refImage    = "image"
	refOverlay  = "overlay"
	userOverlay = "overlay"
	userAttach  = "attachment"
)

func memberPrefix(image string) string       { return preMember + image + "/" }
func memberKey(image, project string) string { return preMember + image + "/" + project }

// refPrefix begins the keys of all that need one object.
func refPrefix(kind, id string) string { return preRef + kind + "/" + id + "/" }

func refKey(kind, id, userKind, user string) string {
	return refPrefix(kind, id) + userKind + "/" + user
}

// prefixes has what every key begins with.
func prefixes() []string {
	return []string{"meta/", preImage, preDead, preMember, preUpload, preOverlay, preHead, preDirty, preAttach,
		preHold, preRef, preTask, preGarbage, preGateway, preParent, preTrace, preNamespace, preResourceType}
}

// escapeName makes any name one element of a key.
func escapeName(name string) string { return url.PathEscape(name) }

func namespaceKey(name string) string    { return preNamespace + escapeName(name) }
func resourceTypeKey(name string) string { return preResourceType + escapeName(name) }

func parentPrefix(image string) string     { return preParent + image + "/" }
func parentKey(image, store string) string { return preParent + image + "/" + store }

// parentID names a parent in the index and in changes.
func parentID(image, store string) string { return image + "/" + store }

// garbageKey sorts by time, so that the oldest is collected first.
func garbageKey(since time.Time, id string) string {
	return fmt.Sprintf("%s%020d/%s", preGarbage, since.UnixMicro(), id)
}

// cutMember takes a member's key apart. A project may hold slashes; an image
// id may not.
func cutMember(key string) (image, project string) {
	image, project, _ = strings.Cut(strings.TrimPrefix(key, preMember), "/")
	return image, project
}

// checkID refuses what cannot be one element of a key.
func checkID(kind, id string) error {
	if id == "" || len(id) > 255 {
		return fmt.Errorf("%s id of %d bytes: %w (1 to 255 are allowed)", kind, len(id), fs.ErrInvalid)
	}
	for _, r := range id {
		if r == '/' || r < ' ' || r == 0x7f {
			return fmt.Errorf("%s id %q: %w (slashes and control characters are not allowed)", kind, id, fs.ErrInvalid)
		}
	}
	return nil
}
