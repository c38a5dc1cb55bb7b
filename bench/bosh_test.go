package bench

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// RFC 9112 §3: what is sent is what a server reads.
func TestPosts(t *testing.T) {
	head := postHead("localhost:5280", "/http-bind")
	var wire []byte
	bodies := []string{"", "<body/>", strings.Repeat("x", 100_000)}
	for _, body := range bodies {
		wire = appendPost(wire, head, []byte(body))
	}
	r := bufio.NewReader(bytes.NewReader(wire))
	for _, body := range bodies {
		req, err := http.ReadRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(req.Body)
		if err != nil || string(got) != body || req.Method != "POST" || req.URL.Path != "/http-bind" || req.Host != "localhost:5280" {
			t.Errorf("%s %s of %s, %d bytes: %v", req.Method, req.URL, req.Host, len(got), err)
		}
	}
}

func TestResponses(t *testing.T) {
	const next = "HTTP/1.1 404 Not Found\r\ncontent-length:  0 \r\n\r\n"
	for _, test := range []struct {
		wire, body string
		status     int
		last       bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 7\r\nDate: now\r\n\r\n<body/>", "<body/>", 200, false},
		{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", "x", 200, true},
		{"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", "", 204, false},
		{next, "", 404, false},
	} {
		r, size, err := cutResponse([]byte(test.wire + next))
		if err != nil || size != len(test.wire) || r.status != test.status || string(r.body) != test.body || r.last != test.last {
			t.Errorf("%q: %+v, %d bytes, %v", test.wire, r, size, err)
		}
		for n := range len(test.wire) {
			if _, size, err := cutResponse([]byte(test.wire[:n])); size != 0 || err != nil {
				t.Errorf("%q was cut before it was whole: %d, %v", test.wire[:n], size, err)
			}
		}
	}
	for name, wire := range map[string]string{
		"another protocol":  "SSH-2.0-x\r\n\r\n",
		"no status":         "HTTP/1.1\r\n\r\n",
		"status in letters": "HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n",
		"interim":           "HTTP/1.1 100 Continue\r\n\r\n",
		"no length":         "HTTP/1.1 200 OK\r\n\r\n",
		"negative length":   "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"very long":         "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
		"chunked":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"endless head":      "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 70_000),
	} {
		if _, _, err := cutResponse([]byte(wire)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		junk := rapid.SliceOf(rapid.SampledFrom([]byte("HTP/1.20 :\r\n"))).Draw(t, "junk")
		_, _, _ = cutResponse(append([]byte("HTTP/1.1 200\r\n"), junk...))
	})
}

// XEP-0124 §7.1, §8, §13; XEP-0206 §3, §5.
func TestRequestBodies(t *testing.T) {
	type request struct {
		XMLName xml.Name `xml:"http://jabber.org/protocol/httpbind body"`
		RID     uint64   `xml:"rid,attr"`
		SID     string   `xml:"sid,attr"`
		To      string   `xml:"to,attr"`
		Hold    string   `xml:"hold,attr"`
		Wait    int      `xml:"wait,attr"`
		Version string   `xml:"urn:xmpp:xbosh version,attr"`
		Restart string   `xml:"urn:xmpp:xbosh restart,attr"`
		Type    string   `xml:"type,attr"`
		Inner   string   `xml:",innerxml"`
	}
	name := xml.Name{Space: "http://jabber.org/protocol/httpbind", Local: "body"}
	for _, test := range []struct {
		raw  []byte
		want request
	}{
		{
			appendCreation(nil, 7, "localhost"),
			request{name, 7, "", "localhost", "1", holdTime, "1.0", "", "", ""},
		},
		{appendBody(nil, 8, "a", "", nil), request{name, 8, "a", "", "", 0, "", "", "", ""}},
		{
			appendBody(nil, 9, "a", restartNS+" to='localhost'", nil),
			request{name, 9, "a", "localhost", "", 0, "", "true", "", ""},
		},
		{appendBody(nil, 10, "a", " type='terminate'", nil), request{name, 10, "a", "", "", 0, "", "", "terminate", ""}},
		{
			appendBody(nil, 11, "a", "", []byte("<m/><m>x</m>")),
			request{name, 11, "a", "", "", 0, "", "", "", "<m/><m>x</m>"},
		},
	} {
		var got request
		if err := xml.Unmarshal(test.raw, &got); err != nil || got != test.want {
			t.Errorf("%s: %+v, %v", test.raw, got, err)
		}
	}
	stanza := []byte("<m/>")
	if got := len(appendBody(nil, 4_000_000_000, strings.Repeat("s", 32), "", stanza)) - len(stanza); got != envelope {
		t.Errorf("an envelope of %d bytes, %d are reckoned with", got, envelope)
	}
	if long := len(lineLetter("00000001", 77, 100).frame) + 1; long != len(xmppLetter("u00001@localhost/bench", 77, 100, false).frame)+envelope {
		t.Errorf("a line of %d bytes is not as long as its like", long)
	}
}

func TestResponseBodies(t *testing.T) {
	for _, test := range []struct {
		raw  string
		want []string
	}{
		{"<body/>", nil},
		{"<body a='b'></body>", nil},
		{"<?xml version='1.0'?> <body><a/></body>\n", []string{"<a/>"}},
		{
			"<h:body xmlns:h='x'><a b='c'/><stream:x><b/><b>t</b></stream:x>\n<d></d></h:body>",
			[]string{"<a b='c'/>", "<stream:x><b/><b>t</b></stream:x>", "<d></d>"},
		},
	} {
		_, rest, ok := payloads([]byte(test.raw))
		var got []string
		for e := []byte(nil); len(rest) > 0; {
			if e, rest = cutElement(rest); e != nil {
				got = append(got, string(e))
			}
		}
		if !ok || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", test.raw, got)
		}
	}
	for _, bad := range []string{"", "x", "<html></html>", "<body>", "<body"} {
		if _, _, ok := payloads([]byte(bad)); ok {
			t.Errorf("%q is taken for a body", bad)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		junk := rapid.SliceOf(rapid.SampledFrom([]byte(`</>a '`))).Draw(t, "junk")
		for e := junk; len(e) > 0; {
			_, e = cutElement(e)
		}
		payloads(append([]byte("<body>"), junk...))
	})
}
