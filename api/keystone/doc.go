// Package keystone turns a token into an identity, by asking OpenStack's
// identity service.
//
// A [Keystone] is the [wire.Authenticator] of auth mode keystone. It logs in
// as a user of its own, with a password, and asks Keystone v3 about each
// X-Auth-Token:
//
//	GET AUTH_URL/v3/auth/tokens?nocatalog
//
// # What is remembered
//
// An answer is kept under the SHA-256 sum of the token, never under the token:
// a valid one for Config.Remember or until the token ends, whichever is first,
// a refusal for Config.RememberBad. So a token that is revoked works for
// Remember at most. Both kinds have a cache of their own, bounded by number:
// who sends rubbish pushes out rubbish. Requests with one token that arrive
// together ask Keystone once.
//
// # When Keystone is away
//
// A token that is remembered goes on; for any other the answer is 503 with
// Retry-After. So it is as well when Keystone answers what makes no sense, or
// refuses the gateway's own user: whose fault that is, the caller's it is not.
// [Keystone.Trouble] tells of it, and [Keystone.Run] tries again until it is
// over.
//
// The own token is renewed before it ends, and when Keystone says 401 to it.
// A refused password is not tried again at once, since Keystone may lock a
// user out who fails too often.
//
// # Services
//
// A request may have an X-Service-Token beside the user's. It must be valid,
// or the request is 401. If the service has the role "service", the user's
// token may have ended meanwhile, as happens in long work; Keystone says for
// how long (allow_expired_window).
//
// # Limits
//
// An answer may have [maxAnswer] bytes, one to a login [maxLogin], and no redirect is followed: the token
// would go along. What is longer than [maxToken], or has characters that no
// token has, is refused without asking. No text of Keystone's answers, and no
// token, gets into an error or a log. Tokens that are bound to access rules
// are refused by Keystone itself, since nothing here tells it that they would
// be kept.
package keystone
