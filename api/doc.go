// Package api serves the Image API, version 2, as OpenStack Glance serves it:
// whoever has talked to a Glance talks to this server by changing one URL.
//
// # What is there
//
// Versions and their discovery, images (create, list, show, patch, delete),
// upload and download with Range, tags, members, deactivate and reactivate,
// schemas, reading tasks, /v2/info, /healthcheck. The levels of the API whose
// features are not built are not listed, so clients do not look for them;
// what belongs to them answers as a Glance in which they are switched off:
// staging is 404, an import knows no method and is 400,
// /v2/metadefs and …/locations are 404, changing locations by PATCH is 403.
//
// # Where it differs, on purpose
//
//   - POST /v2/images with an array is 400, not 500.
//   - A JSON object with a key twice, JSON deeper than [wire.MaxDepth], and
//     text that is not UTF-8 are 400.
//   - The pointer "/" in a PATCH is 400; it does not make a property named "".
//   - Ranges work on every store. A 416 says how long the image is.
//   - The link to the next page keeps every tag, not only the last one.
//   - X-Openstack-Image-Size (of newer Glance) is checked.
//   - Without an Authenticator the schema of an image has no "stores", because
//     the glance command cannot start with it when there is no Keystone.
//   - GET …/tasks of an image shows all of them to its owner and to
//     administrators, and to others their own.
//   - A query that uses a colon without an operator says how to quote it.
//
// # Around a request
//
// [Server] gives each request an id and an identity, writes its line in the
// log, and answers its error; see package wire. Handlers are the rows of the
// table in routes.go. Each asks one function, [wire.Policy.Allow], before it
// does anything (policy.go; package policy has the rules). What the catalog or
// the rule get_image hides from a caller is 404, what else is refused is 403,
// in Glance's order: the catalog, then the rule of the call, then, if that
// refuses, get_image. Who is an administrator is what the rule
// context_is_admin says. Every change leaves an audit line.
//
// Without an Authenticator everybody is an administrator without a project.
// So that no web page can use that through its reader's browser, requests
// whose Host or Origin is not this server's are refused (guard.go).
//
// Uploads are handed on as they come and downloads go out in pieces of
// [pieceSize]; neither is ever held in memory. A transfer may last for hours,
// but a client that is silent for [wire.Patience] is cut off.
package api
