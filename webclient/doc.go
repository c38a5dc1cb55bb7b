// Package webclient serves the chat widget and the demo page, which are in the binary.
//
// The widget is TypeScript in src/, the page in demo/, and dist/ is what build.mjs makes of both. dist/ is committed, so
// that the gateway builds without Node; scripts/webclient.sh fails when it is not what its source makes. How the widget
// works is said in docs/webclient.md.
//
// # What is served
//
// /widget.js is what a page embeds, as long as HOLDFAST_WIDGET is on: it may be cached for a few minutes, and changes with
// the gateway. /widget/HASH.js is the same for pages that say which version they mean, by subresource integrity: its
// address has the hash of its content and it never changes. /widget.json tells both the address and the integrity. All
// three may be loaded by pages of other sites. With HOLDFAST_DEMO, / is the demo page. Everything else is not found.
//
// A Handler is safe for concurrent use and has no goroutines.
package webclient
