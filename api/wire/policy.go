package wire

import (
	"context"

	"github.com/seed-478a8fee/platter/catalog"
)

// A Policy decides who may do what. The error of a refusal is Errorf(403, …),
// with the rule named in its text.
type Policy interface {
	Allow(ctx context.Context, who Identity, rule string, target Target) error
}

// A Target is what an action would be done to. Its zero value is nothing in
// particular: the service itself.
type Target struct {
	Kind       string         // image, images, task, overlay, attachment, …
	ID         string         // "": it has none, or not yet
	Owner      string         // the project that owns it; of a list, the one that asks
	Visibility string         // of an image or a namespace
	Member     string         // the asking project, if the image is shared with it
	Image      *catalog.Image // an image that is there already; not to be changed
}
