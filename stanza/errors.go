package stanza

import "strconv"

// StreamError is a stream-level error condition of RFC 6120 §4.9.3. It is a comparable value; errors.Is compares
// the condition alone, so that an explained error still is the error.
type StreamError struct {
	Condition string
	// Text explains the error to a human; it may be empty.
	Text string
	// Host is where to go; only <see-other-host/> has one (RFC 6120 §4.9.3.19).
	Host string
}

// The conditions of RFC 6120 §4.9.3.
var (
	BadFormat              = StreamError{Condition: "bad-format"}
	BadNamespacePrefix     = StreamError{Condition: "bad-namespace-prefix"}
	Conflict               = StreamError{Condition: "conflict"}
	ConnectionTimeout      = StreamError{Condition: "connection-timeout"}
	HostGone               = StreamError{Condition: "host-gone"}
	HostUnknown            = StreamError{Condition: "host-unknown"}
	ImproperAddressing     = StreamError{Condition: "improper-addressing"}
	InternalServerError    = StreamError{Condition: "internal-server-error"}
	InvalidFrom            = StreamError{Condition: "invalid-from"}
	InvalidNamespace       = StreamError{Condition: "invalid-namespace"}
	InvalidXML             = StreamError{Condition: "invalid-xml"}
	NotAuthorized          = StreamError{Condition: "not-authorized"}
	NotWellFormed          = StreamError{Condition: "not-well-formed"}
	PolicyViolation        = StreamError{Condition: "policy-violation"}
	RemoteConnectionFailed = StreamError{Condition: "remote-connection-failed"}
	Reset                  = StreamError{Condition: "reset"}
	ResourceConstraint     = StreamError{Condition: "resource-constraint"}
	RestrictedXML          = StreamError{Condition: "restricted-xml"}
	SeeOtherHost           = StreamError{Condition: "see-other-host"}
	SystemShutdown         = StreamError{Condition: "system-shutdown"}
	UndefinedCondition     = StreamError{Condition: "undefined-condition"}
	UnsupportedEncoding    = StreamError{Condition: "unsupported-encoding"}
	UnsupportedFeature     = StreamError{Condition: "unsupported-feature"}
	UnsupportedStanzaType  = StreamError{Condition: "unsupported-stanza-type"}
	UnsupportedVersion     = StreamError{Condition: "unsupported-version"}
)

// WithText returns e with an explanation for humans.
func (e StreamError) WithText(text string) StreamError {
	e.Text = text
	return e
}

// Error implements error.
func (e StreamError) Error() string {
	if e.Text == "" {
		return "stream error: " + e.Condition
	}
	return "stream error: " + e.Condition + ": " + e.Text
}

// Is reports whether target is a StreamError of the same condition.
func (e StreamError) Is(target error) bool {
	t, ok := target.(StreamError)
	return ok && t.Condition == e.Condition
}

// Raw renders <stream:error/> with its namespaces explicit, as a WebSocket frame needs it (RFC 7395 §3.5).
func (e StreamError) Raw() []byte {
	cond := e.Condition
	if !isCondition(cond) {
		cond = UndefinedCondition.Condition
	}
	b := make([]byte, 0, 192+2*len(cond)+len(e.Text)+len(e.Host))
	b = append(b, "<stream:error xmlns:stream='"+NSStream+"'><"...)
	b = append(b, cond...)
	b = append(b, " xmlns='"+NSStreamErrors+"'"...)
	if e.Host == "" {
		b = append(b, "/>"...)
	} else {
		b = append(b, '>')
		b = AppendEscaped(b, e.Host)
		b = append(b, "</"...)
		b = append(b, cond...)
		b = append(b, '>')
	}
	if e.Text != "" {
		b = append(b, "<text xmlns='"+NSStreamErrors+"' xml:lang='en'>"...)
		b = AppendEscaped(b, e.Text)
		b = append(b, "</text>"...)
	}
	return append(b, "</stream:error>"...)
}

// isCondition keeps whatever a caller put together from becoming markup: conditions are lower-case words.
func isCondition(s string) bool {
	if s == "" || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// SyntaxError says what Scan refused, where (bytes from the start), and which stream error it amounts to.
type SyntaxError struct {
	Offset int
	Reason string
	Stream StreamError
}

// Error implements error. It never quotes the input.
func (e *SyntaxError) Error() string {
	return e.Stream.Condition + ": " + e.Reason + " at byte " + strconv.Itoa(e.Offset)
}

// Unwrap gives the stream error, for errors.Is and errors.As.
func (e *SyntaxError) Unwrap() error { return e.Stream }
