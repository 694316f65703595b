// Package protect keeps properties of images from whoever may not create,
// read, change or remove them, by the rules of Glance's property protection
// file:
//
//	[^x_billing_]
//	create = admin, billing
//	read = admin, billing, member
//	update = admin, billing
//	delete = admin
//
//	[.*]
//	create = @
//	read = @
//	update = @
//	delete = @
//
// A section is a regular expression that is looked for in the name of a
// property (RE2 syntax, so that none takes long). The first one that matches
// decides; a property that none matches is nobody's. A list names roles, of
// the user or of the service that comes along; "@" is everybody and "!" nobody.
// With the format "policies" a list is the name of one rule of the policy file.
//
// A property that may not be read looks as if it were not there, also in the
// filters of a list.
package protect
