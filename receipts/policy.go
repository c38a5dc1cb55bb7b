package receipts

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"holdfast/stanza"
)

// Proof is a way to know that a message reached the recipient's client.
type Proof uint8

const (
	ByReceipt Proof = iota + 1 // XEP-0184 <received/>
	ByMarker                   // XEP-0333 chat marker
	ByAck                      // XEP-0198 acknowledgement of a client that sends no receipts
)

var proofNames = [...]string{ByReceipt: "receipt", ByMarker: "marker", ByAck: "ack"}

// String is the name of the proof in RECEIPTS_PROOF.
func (p Proof) String() string {
	if p == 0 || int(p) >= len(proofNames) {
		return fmt.Sprintf("Proof(%d)", uint8(p))
	}
	return proofNames[p]
}

// MarshalText is the inverse of UnmarshalText.
func (p Proof) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads one name of RECEIPTS_PROOF.
func (p *Proof) UnmarshalText(text []byte) error {
	name := strings.TrimSpace(string(text))
	i := slices.Index(proofNames[:], name)
	if i <= 0 {
		return fmt.Errorf("RECEIPTS_PROOF: %q is none of receipt, marker, ack", name)
	}
	*p = Proof(i)
	return nil
}

// Config is what an operator sets.
type Config struct {
	Proof []Proof `env:"RECEIPTS_PROOF" desc:"what proves that a message arrived, comma-separated: receipt (XEP-0184, always needed), marker (XEP-0333), ack (XEP-0198, where the client does not advertise receipts)"`
}

// DefaultConfig takes every proof there is.
func DefaultConfig() Config {
	return Config{Proof: []Proof{ByReceipt, ByMarker, ByAck}}
}

var errNoReceipt = errors.New("RECEIPTS_PROOF: must contain receipt; it accepts receipt, marker, ack")

// Validate names the setting that cannot be used, and why.
func (c Config) Validate() error {
	for i, p := range c.Proof {
		if p < ByReceipt || p > ByAck {
			return fmt.Errorf("RECEIPTS_PROOF: %v is none of receipt, marker, ack", p)
		}
		if slices.Contains(c.Proof[:i], p) {
			return fmt.Errorf("RECEIPTS_PROOF: %v is named twice", p)
		}
	}
	if !slices.Contains(c.Proof, ByReceipt) {
		return errNoReceipt
	}
	return nil
}

// Policy is a Config ready for use. The zero Policy takes receipts alone.
type Policy struct{ marker, ack bool }

// Policy says what counts under c, which must be valid.
func (c Config) Policy() Policy {
	return Policy{marker: slices.Contains(c.Proof, ByMarker), ack: slices.Contains(c.Proof, ByAck)}
}

// Support is what is known of a client's support of XEP-0184.
type Support uint8

const (
	// Unknown is a client whose entity capabilities are announced and not yet resolved.
	Unknown Support = iota
	// Supported is a client whose disco#info has the feature urn:xmpp:receipts.
	Supported
	// Unsupported is a client whose disco#info lacks the feature, or that announces no capabilities at all.
	Unsupported
)

// Ack reports whether an XEP-0198 acknowledgement by a client proves that a message arrived. While the client's
// support is Unknown it does not: a receipt may be on its way, and waiting for it loses nothing.
func (p Policy) Ack(s Support) bool { return p.ack && s == Unsupported }

// SupportOf reads a client's support out of a disco#info result (XEP-0030 §3.1).
func SupportOf(info *stanza.Stanza) (Support, error) {
	var iq struct {
		Query *struct {
			Features []struct {
				Var string `xml:"var,attr"`
			} `xml:"http://jabber.org/protocol/disco#info feature"`
		} `xml:"http://jabber.org/protocol/disco#info query"`
	}
	if info.Kind() != stanza.IQ || string(info.TypeRaw()) != "result" {
		return Unknown, nil
	}
	if err := info.Decode(&iq); err != nil {
		return Unknown, fmt.Errorf("receipts: disco#info: %w", err)
	}
	if iq.Query == nil {
		return Unknown, nil
	}
	for _, f := range iq.Query.Features {
		if f.Var == NS {
			return Supported, nil
		}
	}
	return Unsupported, nil
}
