// Package amp is Advanced Message Processing (XEP-0079): what a sender wants to happen to a message, by rules of a condition
// and an action each. The package reads and checks rules, says which of them what is about to happen triggers, and words the
// answers; it carries nothing out and knows no sessions.
//
//	condition       value                              is met
//	deliver         direct                             when a client that is connected gets the message now
//	deliver         stored                             when it goes to the mailbox, or waits for a client that is away
//	deliver         none                               when nobody gets it
//	deliver         forward, gateway                   never: this server does neither
//	expire-at       DateTime in UTC (XEP-0082)         when that time has come
//	match-resource  any                                when a resource gets it
//	match-resource  exact                              when only the intended resource gets it; for a bare address: the mailbox
//	match-resource  other                              when anything but the intended resource gets it, the mailbox too; for a bare address: any resource
//
// Rules are looked at in their order. notify lets the search go on, alert, drop and error end it (§3.4).
//
// What a report would tell about the presence of the recipient is for those only who may see it (§8): alert, error and
// notify of anybody else are refused, and drop is not.
//
// The package has no goroutines. A Ruleset is immutable.
package amp
