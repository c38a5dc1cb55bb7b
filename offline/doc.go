// Package offline keeps messages for users who are not there: the mailbox of XEP-0160, its policy and its limits.
//
// # Policy
//
// [Decide] is the one place that knows what is kept when a recipient has no available resource of non-negative
// priority. It follows RFC 6121 §8.5.2.2.1 (store, answer with service-unavailable, or ignore, by type), XEP-0160 §3,
// XEP-0334 and what servers do with messages without a body. The first row that fits decides:
//
//	type       content                                            verdict
//	(presence, iq)                                                drop
//	error      any                                                drop
//	any other  a rule of OFFLINE_MATCHERS                         as the rule says
//	groupchat  any                                                bounce, or as chat by OFFLINE_GROUPCHAT
//	headline   hint store, and none against storing               store
//	headline   any other                                          drop
//	chat, normal, none, any other word:
//	           no-store, nothing but a chat state                 drop
//	           no-store, nothing but receipts and markers         drop
//	           no-store, any other content                        bounce
//	           no-permanent-store                                 ignored, or as no-store by OFFLINE_STORE_NO_PERMANENT=false
//	           store                                              store
//	           body or subject                                    store
//	           receipt, or a request for one (XEP-0184)           store
//	           marker, or a request for one (XEP-0333)            store
//	           nothing but a chat state (XEP-0085)                drop
//	           nothing                                            drop
//	           other content                                      bounce, or store by OFFLINE_STORE_BODILESS
//
// A bounce is service-unavailable with a text that says why. A message that the sender may believe to be delivered is
// therefore never dropped: what is refused for a hint or for want of a body is bounced, as RFC 6121 has it for what is
// not stored; only what means nothing later is dropped. XEP-0334 lets no-permanent-store wait in a mailbox, which is
// no permanent archive; so it does, unless the operator thinks otherwise. A hint that forbids to store wins over store.
// Delays, expiries, stanza ids, threads and legacy events are no content.
//
// OFFLINE_STORAGE switches storage off: what would be stored is bounced with the text "Bounce offline message" (error),
// or everything but groupchat is dropped (drop), be it that the clients of these users fetch an archive, or that they have to do
// without. What is in the mailboxes is still delivered. Only where drop is configured, here and in OFFLINE_OVER_LIMIT,
// does the sender of content hear nothing; the decision is counted. A message whose receipt did not come, and which
// the mailbox does not take then, is answered all the same (package packetcache).
//
// # Matchers
//
// OFFLINE_MATCHERS is a list of rules, of which the first that matches decides, whatever type, hints and content say.
// In ABNF (RFC 5234), with blanks allowed around the commas:
//
//	list      = [ rule *( "," rule ) ]
//	rule      = [ "+" / "-" ] "/message" *condition [ "/" payload *condition ]
//	payload   = "*" / name                ; a direct child of the message, by its local name
//	condition = "[@" name "]"             ; the attribute is there
//	          / "[@" name "=" value "]"   ; and has this value
//	          / "[xmlns=" namespace "]"   ; the element is of this namespace, else of any
//	          / "[" namespace "]"         ; the same
//
// A value is all up to the "]", without quotes. All conditions have to hold for one and the same element. The type of
// a message that has none, or an unknown one, is normal (RFC 6121 §5.2.2). A rule with "-" refuses: a headline and what
// carries nothing but chat states, receipts, markers and hints is dropped, all else is bounced. Errors are never
// stored.
//
//	/message/received[urn:xmpp:receipts]                  store receipts, also with no-store
//	-/message/received[xmlns=urn:xmpp:receipts]           refuse them
//	/message/store-offline                                store what has such an element, of any namespace
//	-/message/do-not-store                                refuse what has such an element
//	-/message[@type=chat]/*[urn:xmpp:chat-markers:0]      refuse chat messages with a marker, or with a request for one
//	/message/*[http://jabber.org/protocol/chatstates]     store chat states
//	/message/x[jabber:x:event]                            store legacy events
//	/message[@type=headline]                              store headlines
//	-/message/plain,/message/received                     "-" comes first: what has both is refused
//
// # Limits
//
// Messages of one sender for one recipient (OFFLINE_LIMIT), messages and bytes of one recipient, each lifted by 0.
// What is over one is bounced, or dropped by OFFLINE_OVER_LIMIT.
// They are counted exactly, with what is not yet committed, so that of many senders at once none gets in above the
// limit. [Mailbox.Force] goes past them.
//
// A user may choose ([Mailbox.Choose], by the IQ that Tigase has) what OFFLINE_LIMIT is for messages to this user, where
// OFFLINE_OWN_LIMIT lets users and up to OFFLINE_OWN_LIMIT_MAX: a number, any number, or 0, with which nothing is stored.
// It is in the store when Choose returns, and is read with the counters, so it holds exactly from then on, wherever the
// user's home is. What is stored already stays. The limits for all senders together remain the operator's. A choice over
// a ceiling that was lowered counts as the ceiling; one that is not allowed any more is kept, and does not count. It ends
// with the account ([Mailbox.Forget]).
//
// # Markers
//
// A chat marker says that everything up to the message it names was received, displayed or acknowledged, in its thread
// (XEP-0333 §6). Of the messages in a mailbox that are nothing but one marker, from one bare address and for one thread
// (or none), a new one therefore takes the place of those before it that say the same or less: displayed that of received,
// acknowledged that of both. A less significant marker leaves a more significant one alone, since it may be about later
// messages (§8.1). One that comes late, behind a newer one that says as much, is dropped. What carries anything else, be it
// a body, a receipt (XEP-0184, of which each counts), a second marker, rules or an expiry, is kept as any message, and so are
// markers of type groupchat, in which one bare address speaks for many. It is the same when the journal is replayed: ids
// decide, not the order of the calls.
//
// # Expiry
//
// Three things end the time of a stored message: OFFLINE_LIFETIME, counted from when the gateway took it; the seconds of
// <x xmlns='jabber:x:expire'/> (XEP-0023), likewise; and a rule of XEP-0079 with expire-at (§4.3.2), as Config.ExpireAt
// says, of which the earliest that does more than notify counts. The last two are stored with the message. From that
// moment no [Mailbox.Page] has it, so nobody is given it; it counts for the limits until it is taken out, some minutes
// later in the case of the lifetime (5% of it, at least a minute) and some seconds later in the other cases, in batches
// and a bounded number of bytes at a time. [Mailbox.RunExpiry] hands those that expired by their own word to package
// session, which tells the senders whose rules want it, and leaves alone what a session of the user has already. XEP-0023
// has nobody told. A message that is delivered with seconds left says how many; one that expired before it came to be
// stored is dropped, unless it is Forced. What is gone is counted by reason.
//
// # Order, identity, time
//
// A message is keyed by its recipient and its stanza id; ids are sorted by the time at which the gateway took the
// message, and that is the order of the mailbox. Put, Remove and Purge are idempotent: the journal may be replayed
// into a Mailbox that has some of it. The delay stamp says that same time, as XEP-0203 §2 asks ("originally sent"):
// it does not move when a message comes here late, out of the packet cache or an expired session, or again, out of
// the journal, and stamps are never in another order than the messages.
//
// # Writing
//
// A change is made in memory, where every method sees it at once, and queued for a group commit. [Mailbox.Checkpoint]
// waits for everything before it; until then the journal has it. A put that is removed before its transaction begins
// is never written. OFFLINE_PENDING_BYTES bounds what is queued: over it Put says ErrBusy, and [Mailbox.Room] is where the
// sender waits for a store that is slow or failing. What came in before (Force), and what makes room (Remove, Purge),
// passes.
//
// What the store refuses by itself, and will always refuse, stays in memory and fails every Checkpoint, so that the
// journal is kept.
//
// # Memory
//
// A Mailbox holds a hash of every recipient with mail, up to OFFLINE_KNOWN of them, so that the login of a user
// without mail costs no query; as many of users who chose a limit; counters of recipients used lately, up to OFFLINE_CACHE; and what is not committed.
// Paging takes the memory of one page, however large the mailbox.
//
// # Invariants
//
//   - A box is unique for its user while anyone has a reference; every queued write has one. So what the store does
//     not have yet is always found in the box, and a box that is loaded anew finds everything in the store.
//   - box.count = messages that only the store has and shows + len(box.puts).
//   - Writes of one user are queued in the order of the changes to the box, under box.mu.
//   - Nobody else writes to the Backend of a running Mailbox; in a cluster (Config.Shared), nobody else writes or
//     reads what it has of a user, while this Mailbox is the one for that user.
//
// # Several gateways
//
// With a shared Backend each user has one home at a time, the node whose Mailbox is used for the user. When the home
// moves, the old one calls [Mailbox.Release], after which its changes are committed and its counters forgotten, and
// only then the new one begins. A node that did anything for a user who is at home elsewhere (the replay of a dead node's
// journal) calls Release behind it. Expiry asks Config.Mine before it removes anything; when the answer changes while
// it is at work, it calls Release itself, but the new home's counters may have been loaded before: they count messages
// that expired until they are loaded anew, never fewer than there are.
//
// # Operators
//
// What an operator wants to see is read from the Backend, beside the Mailboxes that use it. To empty a mailbox is asked
// for in the store (Purges), and carried out by [Mailbox.RunPurges] of the gateway that is the user's home: it alone
// knows what is under way, and has the journal that must not bring the messages back. A request names the last message
// that it is about, so that it may come late or twice.
//
// # Locks and goroutines
//
// box.mu comes before boxes.mu, known.mu, gate.mu, Mailbox.mu and those of the Batcher, which are leaves. box.mu is
// held while the store is asked about its user; nothing waits for room in a queue, whatever it holds, but Room, which
// is called without locks.
//
// The Batcher's goroutine runs apply, committed and reject, and owns Mailbox.changes. One more goroutine expires
// messages and counts a shared store. Both end with [Mailbox.Close].
package offline
