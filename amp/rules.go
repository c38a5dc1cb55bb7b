package amp

import (
	"slices"
	"strings"
	"time"

	mstanza "mellium.im/xmpp/stanza"

	"holdfast/stanza"
)

const (
	// NS is the namespace of rules, and the disco node at which what is supported is listed.
	NS = stanza.NSAMP
	// NSErrors is that of the condition for rules that were met.
	NSErrors = NS + "#errors"
	// NSFeature is that of the stream feature.
	NSFeature = "http://jabber.org/features/amp"
)

// Features is what is announced at the node NS (§3.1).
var Features = []string{
	NS,
	NS + "?action=alert", NS + "?action=drop", NS + "?action=error", NS + "?action=notify",
	NS + "?condition=deliver", NS + "?condition=expire-at", NS + "?condition=match-resource",
}

// Action is what a rule asks for.
type Action string

// The actions of §4.4.
const (
	Alert  Action = "alert"  // drop it, and say so
	Drop   Action = "drop"   // drop it
	Error  Action = "error"  // drop it, with an error
	Notify Action = "notify" // say so, and go on
)

// Rule is one of them.
type Rule struct {
	Action           Action
	Condition, Value string

	at time.Time // of expire-at
}

// expireAt is the condition about time (§4.3.2).
const expireAt = "expire-at"

// Ruleset is what a message asks for.
type Ruleset struct {
	rules []Rule
}

// maxRules bounds what one message can ask for.
const maxRules = 32

// Of reads the rules of a message. It is nil when there are none for a server: without <amp/>, or with one that is the
// report of another server. A refusal is the error for a message with rules that can't be followed.
func Of(st *stanza.Stanza) (*Ruleset, *mstanza.Error, []byte) {
	if st.Payloads()&stanza.AMP == 0 || string(st.TypeRaw()) == "error" {
		return nil, nil, nil
	}
	amp, ok := st.Find(NS, "amp")
	if !ok || amp.HasAttr("status") {
		return nil, nil, nil
	}
	var in struct {
		PerHop string `xml:"per-hop,attr"`
		Rules  []struct {
			Action    string `xml:"action,attr"`
			Condition string `xml:"condition,attr"`
			Value     string `xml:"value,attr"`
		} `xml:"http://jabber.org/protocol/amp rule"`
	}
	bad := &mstanza.Error{Type: mstanza.Modify, Condition: mstanza.BadRequest}
	if err := amp.Decode(&in); err != nil {
		return nil, bad, nil
	}
	if len(st.IDRaw()) == 0 {
		bad.Text = map[string]string{"en": "a message with rules needs an id"}
		return nil, bad, nil
	}
	if len(in.Rules) == 0 || len(in.Rules) > maxRules || !slices.Contains([]string{"", "true", "false"}, in.PerHop) {
		return nil, bad, nil
	}
	set := &Ruleset{rules: make([]Rule, 0, len(in.Rules))}
	var actions, conditions, values []Rule
	for _, x := range in.Rules {
		r := Rule{Action: Action(x.Action), Condition: x.Condition, Value: x.Value}
		switch r.Action {
		case Alert, Drop, Error, Notify:
		default:
			actions = append(actions, r)
			continue
		}
		known, valid := r.check()
		switch {
		case !known:
			conditions = append(conditions, r)
		case !valid:
			values = append(values, r)
		case r.Condition == "match-resource" && in.PerHop == "true":
			// It is for the edges, and such a set for all hops (§4.3.3).
		default:
			set.rules = append(set.rules, r)
		}
	}
	switch {
	case len(conditions) > 0:
		return nil, bad, specific(NS, "unsupported-conditions", conditions)
	case len(actions) > 0:
		return nil, bad, specific(NS, "unsupported-actions", actions)
	case len(values) > 0:
		return nil, notAcceptable(), specific(NS, "invalid-rules", values)
	}
	return set, nil, nil
}

// check reports whether the condition is known, and its value one that it may have.
func (r *Rule) check() (known, valid bool) {
	switch r.Condition {
	case "deliver":
		return true, slices.Contains([]string{"direct", "forward", "gateway", "none", "stored"}, r.Value)
	case "match-resource":
		return true, slices.Contains([]string{"any", "exact", "other"}, r.Value)
	case expireAt:
		at, err := time.Parse(time.RFC3339Nano, r.Value)
		// UTC is written with a Z, or as an offset of nothing (XEP-0082 §3.2).
		r.at = at
		return true, err == nil && (strings.HasSuffix(r.Value, "Z") || strings.HasSuffix(r.Value, "+00:00") || strings.HasSuffix(r.Value, "-00:00"))
	}
	return false, false
}

func notAcceptable() *mstanza.Error {
	return &mstanza.Error{Type: mstanza.Modify, Condition: mstanza.NotAcceptable}
}

// Reports lists the rules that would tell the sender of the recipient's presence.
func (s *Ruleset) Reports() (telling []Rule) {
	for _, r := range s.rules {
		if r.Action != Drop {
			telling = append(telling, r)
		}
	}
	return telling
}

// Refuse is the error for rules that the sender may not have (§8).
func Refuse(rules []Rule) (*mstanza.Error, []byte) {
	return notAcceptable(), specific(NS, "invalid-rules", rules)
}

// Expires is when a message that waits is not to be delivered any more: when the first of the rules that say so is met.
// What only asks to be told does not say so.
func (s *Ruleset) Expires() (at time.Time, ok bool) {
	for _, r := range s.rules {
		if r.Condition == expireAt && r.Action != Notify && (!ok || r.at.Before(at)) {
			at, ok = r.at, true
		}
	}
	return at, ok
}

// Overdue is Decide for a message that waited, at the moment in which it would be delivered: what else its rules ask about
// was decided when it came in (§4.3.1, §4.3.3).
func (s *Ruleset) Overdue(at time.Time) (notify []Rule, decides Rule, ok bool) {
	late := Ruleset{rules: slices.DeleteFunc(slices.Clone(s.rules), func(r Rule) bool { return r.Condition != expireAt })}
	return late.Decide(Outcome{At: at})
}

// Outcome is what is about to happen to a message.
type Outcome struct {
	Delivery Delivery
	// Intended: the intended resource gets it, and Others: other ones do; for Direct.
	Intended, Others bool
	Bare             bool // the message is for a bare address
	At               time.Time
}

// Delivery is how a message reaches its recipient.
type Delivery string

// The deliveries of §4.3.1 that this server has.
const (
	Direct Delivery = "direct"
	Stored Delivery = "stored"
	None   Delivery = "none"
)

// Decide returns the rules that ask to be told, in their order, and the one that decides about the message, if any does.
func (s *Ruleset) Decide(o Outcome) (notify []Rule, decides Rule, ok bool) {
	for _, r := range s.rules {
		if !r.met(o) {
			continue
		}
		if r.Action != Notify {
			return notify, r, true
		}
		notify = append(notify, r)
	}
	return notify, Rule{}, false
}

func (r Rule) met(o Outcome) bool {
	switch r.Condition {
	case "deliver":
		return r.Value == string(o.Delivery)
	case expireAt:
		return !o.At.Before(r.at)
	}
	if o.Delivery == None {
		return false
	}
	direct := o.Delivery == Direct
	switch r.Value {
	case "any":
		return direct
	case "exact":
		if o.Bare {
			return !direct
		}
		return direct && o.Intended && !o.Others
	}
	if o.Bare {
		return direct
	}
	return !direct || o.Others
}
