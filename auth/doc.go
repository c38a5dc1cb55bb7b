// Package auth says who a client is: the server's side of SASL (RFC 6120 §6, RFC 5802, RFC 7677, RFC 4616), the
// accounts behind it, and in-band registration (XEP-0077).
//
// # Mechanisms
//
// SCRAM-SHA-512, SCRAM-SHA-256, SCRAM-SHA-1, and PLAIN where the peer is secure, in this order. No -PLUS: channel
// binding does not survive a load balancer that ends TLS. mellium.im/sasl drives the exchanges (Negotiator, PLAIN);
// the SCRAM mechanisms are values of its Mechanism type made here, because its own server side needs the
// SaltedPassword, which is as good as the password to who steals the database, has no SHA-512, refuses user names
// with an escaped '=', and puts stored keys into its error texts.
//
// ANONYMOUS (RFC 4505, XEP-0175), where the operator names whom guests may write to, makes an account without
// credentials. The trace information may be a secret of which the guest's name is made, so that a client can be the
// same guest again; see GuestName.
//
// OAUTHBEARER (RFC 7628), where there is a secret for it, takes JSON Web Tokens that the site's own server signed, and
// makes accounts for users whom it did not know.
//
// # At rest
//
// For each hash an account has its own random salt, the iteration count, StoredKey and ServerKey (RFC 5802 §3), never
// a password nor a SaltedPassword. With these a thief can neither log in nor skip the PBKDF2 of guessing. Passwords
// are prepared with SASLprep (RFC 4013), as RFC 5802 §2.2 has the clients do; names are localparts (RFC 7622 §3.3).
//
// # Invariants
//
//   - An unknown user and a wrong password are told apart by nothing: unknown names have a salt and keys derived from
//     the name with a secret of the database, the same queries are asked, the same number of hashes computed, the
//     same condition returned. (Changing AUTH_SCRAM_ITERATIONS shows which accounts were made before.)
//   - Whether an account is disabled is told only to who proved to know the password.
//   - Comparisons of secrets take constant time; passwords, keys and user names are neither logged nor metric labels.
//   - A verified PLAIN password is remembered only as HMAC-SHA256 under a key that lives in this process, and counts
//     only for the version of the account's credentials it was verified against.
//   - Every table that a client can fill has a bound.
//   - Guesses are limited by address and by user here; by stream in the room that owns streams (RFC 6120 §6.4.5).
//
// # Other processes
//
// Accounts caches. Every change of an account leaves a row in a log of changes in the same transaction; a cache
// answers only after it has looked into that log within Config.CacheAge, so a password changed or a user removed by
// `gateway user` counts in a running gateway after at most that long. A removed user's data in other rooms goes by
// the functions given to Accounts.OnRemoved; Accounts.Watch calls them for removals by any process. The log keeps a
// removal until they all succeeded, so one made while no gateway runs is carried out when the next one starts. Of
// several gateways one claims a removal for a minute; after that another may, so a function may be called more than once,
// and at worst by two at the same time. As long as a removal is pending, an account of the same name may be made but is
// not there for anybody: nobody can log in and nothing is taken for it that the removal would take away.
//
// In PostgreSQL whoever logs a change locks the log until the commit. So changes become visible in the order of their
// numbers, and a reader that goes on from the last one it saw misses none.
//
// # Goroutines
//
// Accounts.Watch runs in a goroutine of the caller's until its context ends. Import starts one goroutine a core and
// waits for them. An Exchange belongs to one goroutine at a time; all else is safe for concurrent use.
package auth
