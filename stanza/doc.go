// Package stanza is what the gateway moves: XML elements as immutable raw bytes with a parsed head, XMPP addresses
// that are map keys, stanza ids that sort, and the errors that go on the wire.
//
// An element is scanned once, by [Element.Scan], and forwarded as bytes; [Element.Rewrite] changes its start tag and
// adds children without reading the rest again. The rare paths use encoding/xml through [Element.Decode].
//
// # What Scan accepts
//
// XML 1.0 and Namespaces in XML 1.0, well-formed, in UTF-8, less what RFC 6120 §11.1 forbids: declarations,
// processing instructions, comments, document types, and entities but the five predefined ones. CDATA is allowed.
// Each refusal is a [SyntaxError] that carries its stream error condition (RFC 6120 §4.9.3):
//
//   - restricted-xml: what §11.1 forbids;
//   - bad-namespace-prefix: a prefix that is not declared;
//   - unsupported-encoding: bytes that are not UTF-8 (§4.9.3.22);
//   - policy-violation: more bytes, depth, attributes or children than [Limits] allow;
//   - not-well-formed: all else, a second element or other data after the first included (RFC 7395 §3.3).
//
// Names are those of XML 1.0 up to its fourth edition: the fifth allows more, but a recipient whose parser does not
// know them would lose its stream over a stanza that the gateway let pass.
//
// # Invariants
//
//   - The bytes behind an [Element] or [Stanza] never change; both are read by many goroutines at once.
//   - What Scan accepts, encoding/xml accepts, and both see the same names, attributes and text.
//   - The head of a rewritten stanza is the head that scanning its bytes would give.
//   - Whatever the input, nothing panics, the work is linear in its size, and the depth is not on the Go stack.
//   - An [Addr] is canonical (RFC 7622): two that are equal as addresses are == and the same key.
//   - Each [NewID] is greater than all before it in the process.
//
// The package starts no goroutines. The cache of parsed addresses is its only shared state, bounded and lock-free.
package stanza
