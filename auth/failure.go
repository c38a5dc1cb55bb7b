package auth

// Failure is a SASL error condition of RFC 6120 §6.5, a comparable value.
type Failure struct{ condition, text string }

// The conditions that the gateway uses. IncorrectEncoding and Aborted are the stream's own to say.
var (
	Aborted              = Failure{condition: "aborted"}
	AccountDisabled      = Failure{condition: "account-disabled"}
	IncorrectEncoding    = Failure{condition: "incorrect-encoding"}
	InvalidAuthzid       = Failure{condition: "invalid-authzid"}
	InvalidMechanism     = Failure{condition: "invalid-mechanism"}
	MalformedRequest     = Failure{condition: "malformed-request"}
	MechanismTooWeak     = Failure{condition: "mechanism-too-weak"}
	NotAuthorized        = Failure{condition: "not-authorized"}
	TemporaryAuthFailure = Failure{condition: "temporary-auth-failure"}

	// TooManyFailures is what a client hears whose address, or whose user's name, failed too often.
	TooManyFailures = Failure{condition: "temporary-auth-failure", text: "too many failed authentications, try again in a minute"}

	// TooManyGuests is what a guest hears when there are too many, or too many new ones from that address.
	TooManyGuests = Failure{condition: "temporary-auth-failure", text: "too many guests, try again later"}
)

// Condition is the name of the element in <failure/>.
func (f Failure) Condition() string { return f.condition }

// Text is for humans, and may be empty.
func (f Failure) Text() string { return f.text }

func (f Failure) Error() string {
	if f.text != "" {
		return "sasl: " + f.condition + ": " + f.text
	}
	return "sasl: " + f.condition
}
