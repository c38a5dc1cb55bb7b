package session

import (
	"crypto/sha1" //nolint:gosec // XEP-0115 §5.1 names it
	"encoding/base64"
	"slices"
	"strings"
	"sync"

	"holdfast/stanza"
)

// What a client says of itself (XEP-0115) matters for one thing here: whether it sends receipts (XEP-0184 §6), so that
// only a receipt, and not the acknowledgement of XEP-0198, proves that it has a message.

// capsCache remembers which verified capability hashes include receipts.
type capsCache struct {
	mu    sync.Mutex
	known map[string]bool
}

const maxCaps = 4096

func (c *capsCache) get(ver string) (receipts, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	receipts, ok = c.known[ver]
	return receipts, ok
}

func (c *capsCache) put(ver string, receipts bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxCaps {
		c.known = make(map[string]bool)
	}
	c.known[ver] = receipts
}

// learnCaps looks at available presence, and asks the client what it can when its hash is new.
func (s *Session) learnCaps(presence *stanza.Stanza) {
	if presence.Payloads()&stanza.Caps == 0 || s.receipts() != receiptsNo {
		return
	}
	c, ok := presence.Find(stanza.NSCaps, "c")
	ver := c.Attr("ver")
	if !ok || ver == "" {
		return
	}
	if receipts, ok := s.sv.caps.get(ver); ok {
		if receipts {
			s.knowReceipts(true)
		}
		return
	}
	s.receiptsKnown.Store(receiptsAsked)
	id := "caps-" + secret()[:12]
	s.mu.Lock()
	s.capsID, s.capsVer = id, ver
	s.mu.Unlock()
	query := "<query xmlns='" + nsDiscoInfo + "' node='" + escaped(c.Attr("node")+"#"+ver) + "'/>"
	if err := s.send(nil, stanza.New(stanza.IQ, "get", id, s.addr.Server(), s.addr, []byte(query))); err != nil {
		s.log.Error("client not asked for its features", "error", err)
	}
}

// answered takes the client's answer to a request of the gateway. Answers to roster pushes need nothing done.
func (s *Session) answered(st *stanza.Stanza) {
	s.mu.Lock()
	id, ver := s.capsID, s.capsVer
	mine := id != "" && id == st.Attr("id")
	if mine {
		s.capsID = ""
	}
	s.mu.Unlock()
	if !mine {
		return
	}
	q, ok := st.Find(nsDiscoInfo, "query")
	if !ok || string(st.TypeRaw()) != "result" {
		s.knowReceipts(false)
		return
	}
	var info discoResult
	if err := q.Decode(&info); err != nil {
		s.knowReceipts(false)
		return
	}
	receipts := slices.ContainsFunc(info.Features, func(f discoFeature) bool { return f.Var == stanza.NSReceipts })
	if hash := info.hash(); hash != "" && hash == ver {
		s.sv.caps.put(ver, receipts)
	}
	s.knowReceipts(receipts)
}

type discoFeature struct {
	Var string `xml:"var,attr"`
}

type discoResult struct {
	Identities []struct {
		Category string `xml:"category,attr"`
		Type     string `xml:"type,attr"`
		Lang     string `xml:"http://www.w3.org/XML/1998/namespace lang,attr"`
		Name     string `xml:"name,attr"`
	} `xml:"identity"`
	Features []discoFeature `xml:"feature"`
	Forms    []struct {
		Fields []struct {
			Var    string   `xml:"var,attr"`
			Values []string `xml:"value"`
		} `xml:"field"`
	} `xml:"jabber:x:data x"`
}

// hash is the verification string of XEP-0115 §5.1, with SHA-1, or "" where it proves nothing. Only what is verified is
// believed of other clients with the same hash.
func (d *discoResult) hash() string {
	var parts []string
	for _, i := range d.Identities {
		parts = append(parts, i.Category+"/"+i.Type+"/"+i.Lang+"/"+i.Name)
	}
	slices.Sort(parts)
	var features []string
	for _, f := range d.Features {
		features = append(features, f.Var)
	}
	slices.Sort(features)
	parts = append(parts, features...)
	var forms []string
	for _, form := range d.Forms {
		var name string
		var fields []string
		for _, f := range form.Fields {
			if f.Var == "FORM_TYPE" && len(f.Values) == 1 {
				name = f.Values[0]
				continue
			}
			slices.Sort(f.Values)
			fields = append(fields, strings.Join(append([]string{f.Var}, f.Values...), "<"))
		}
		slices.Sort(fields)
		forms = append(forms, strings.Join(append([]string{name}, fields...), "<"))
	}
	slices.Sort(forms)
	parts = append(parts, forms...)
	all := strings.Join(parts, "<") + "<"
	// Another client's list may be cut into identities, features and forms in another way and hash the same (§8.1).
	// What matters here is that receipts are nowhere but among the features.
	receipts := 0
	for _, f := range features {
		if f == stanza.NSReceipts {
			receipts++
		}
	}
	if strings.Count(all, stanza.NSReceipts) != receipts {
		return ""
	}
	sum := sha1.Sum([]byte(all)) //nolint:gosec // see above
	return base64.StdEncoding.EncodeToString(sum[:])
}
