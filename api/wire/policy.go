package wire

import "context"

// A Policy decides who may do what. The error of a refusal is Errorf(403, …),
// with the rule named in its text.
type Policy interface {
	Allow(ctx context.Context, who Identity, rule string, target Target) error
}

// A Target is what an action would be done to. Its zero value is nothing in
// particular: a list, or the service itself.
type Target struct {
	Kind       string // image, member, task, overlay, attachment, …
	ID         string
	Owner      string // the project that owns it
	Visibility string // of an image
	Member     string // the project a member record is about
	IsMember   bool   // whether who asks is a member of the image
}
