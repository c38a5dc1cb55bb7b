package stanza

import "testing"

func TestDelayedBy(t *testing.T) {
	for inner, want := range map[string]bool{
		"": false,
		"<delay xmlns='urn:xmpp:delay' from='montague.example' stamp='2002-09-10T23:08:25Z'/>":                                  true,
		"<d:delay xmlns:d='urn:xmpp:delay' from='MONTAGUE.example'/>":                                                           true,
		"<delay xmlns='urn:xmpp:delay' from='capulet.example'/><delay xmlns='urn:xmpp:delay' from='montague.example'>x</delay>": true,
		"<delay xmlns='urn:xmpp:delay' from='capulet.example'/>":                                                                false,
		"<delay xmlns='urn:xmpp:delay' from='romeo@montague.example'/>":                                                         false,
		"<delay xmlns='urn:xmpp:delay'/>":                                                                                       false,
		"<delay xmlns='urn:xmpp:delay' from='@'/>":                                                                              false,
		"<delay xmlns='y' from='montague.example'/>":                                                                            false,
		"<z><delay xmlns='urn:xmpp:delay' from='montague.example'/></z>":                                                        false,
	} {
		st, err := Parse([]byte("<message xmlns='jabber:client'>"+inner+"</message>"), ID{})
		if err != nil {
			t.Fatal(err)
		}
		if got := st.DelayedBy(romeo.Server()); got != want {
			t.Errorf("%s: %v", inner, got)
		}
	}
}
