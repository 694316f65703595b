// Package policy decides who may do what: oslo.policy's language and files,
// Glance's rules with their secure-RBAC defaults, and rules of our own in the
// same spirit.
//
// # The language
//
// A rule is a text of checks joined by "and", "or" and "not", in this order of
// binding from weak to strong: or, and, not. Parentheses group.
//
//	@  or an empty rule           everybody
//	!                             nobody
//	role:NAME                     who has the role, whatever its case
//	rule:NAME                     whom the rule NAME allows
//	CREDENTIAL:TEXT               the credential of who asks is TEXT
//	'LITERAL':TEXT, None:TEXT     TEXT is the literal
//
// TEXT may hold %(ATTRIBUTE)s, an attribute of what the action is done to. An
// attribute that is not there refuses; one without a value is "None", and so
// is a credential without one. The old form, a list of lists of checks, the
// outer joined by "or" and the inner by "and", is understood.
//
// Credentials: user_id, user_domain_id, project_id, project_domain_id,
// domain_id, system_scope, system, roles, is_admin, is_admin_project,
// service_user_id, service_user_domain_id, service_project_id,
// service_project_domain_id, service_roles. One that holds a list is TEXT if
// any of its members is.
//
// Attributes: project_id and owner of all that belongs to a project, id and
// kind of everything; of an image also image_id, name, status, visibility,
// member and member_id (the asking project, where the image is shared with
// it), min_disk, min_ram, protected, checksum, disk_format, container_format,
// size, virtual_size, os_hidden, os_hash_algo, os_hash_value and its
// properties. An image that is about to be made has project_id, owner and
// visibility. A list has the asking project_id.
//
// # The file
//
// YAML or JSON: an object of rules by name. A rule that is not in it keeps its
// default. Rules of other names may be there to be named by rule:NAME; one
// that nobody names is warned of. A rule whose old name is in the file takes
// that, as long as the new name is not there.
//
// # Where it differs from oslo.policy, on purpose
//
//   - What oslo.policy would find out with each request is a mistake of the
//     file here: a text that is no rule, a rule that is not defined (there it
//     falls back to the rule "default", which lets everybody in), rules that
//     name each other in a circle, a key twice, a rule without a value (null).
//   - http: and https: checks are refused. They would make each request wait
//     for another server, and none of Glance's rules needs one.
//   - is_admin is what the rule context_is_admin says. Glance has not had it
//     among the credentials for years, and is_admin:True refuses there.
//   - Of the conversions of % there is %(ATTRIBUTE)s, and %% for a percent
//     sign. Of literals there are quoted texts, whole numbers, True, False and
//     None.
//   - Glance's rules from before secure RBAC are not kept as alternatives:
//     enforce_new_defaults is always on. enforce_scope is on unless
//     [Config].AnyScope says otherwise.
//
// # Speed and bounds
//
// Rules are compiled once, with their names resolved; asking one costs no
// memory. A file has at most [MaxFile] bytes and [MaxRules] rules; a rule is
// nested at most [MaxDepth] deep and comes, with all that it names, to at most
// [MaxChecks] checks. A file that is read again and has mistakes leaves the
// rules as they were.
package policy
