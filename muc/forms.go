package muc

import (
	"encoding/xml"

	"mellium.im/xmpp/form"
)

// renderForm renders a data form (XEP-0004).
func renderForm(f *form.Data) []byte {
	b, err := xml.Marshal(f)
	if err != nil {
		return nil
	}
	return b
}

// submitted is a data form that a client sent, with its type.
type submitted struct {
	Type string
	form.Data
}

// UnmarshalXML implements xml.Unmarshaler.
func (s *submitted) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	for _, a := range start.Attr {
		if a.Name.Space == "" && a.Name.Local == "type" {
			s.Type = a.Value
		}
	}
	return s.Data.UnmarshalXML(d, start)
}

// is reports whether the form is a submission of a kind.
func (s *submitted) is(formType string) bool {
	v, ok := s.value("FORM_TYPE")
	return s.Type == "submit" && ok && v == formType
}

// value returns the first value of a field; ok is false without the field.
func (s *submitted) value(name string) (v string, ok bool) {
	values, ok := s.Raw(name)
	if len(values) > 0 {
		v = values[0]
	}
	return v, ok
}
