// Package journal defines what the gateway writes down about a stanza before anything else happens to it, and how
// those records look as bytes. It is the vocabulary that session (which writes) and resume (which keeps and reads
// back) share; it holds no state and opens no file. The bytes go into an internal/wal log.
//
// One record holds everything that one inbound stanza did (who sent it as which of its stanzas, whose outbox it
// entered under which number, whether it went to the mailbox, whether it awaits a receipt), so that a killed
// process has done all of it or nothing of it.
package journal
