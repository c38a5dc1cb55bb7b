package session

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func limitIQ(typ, id, attr string) string {
	return fmt.Sprintf("<iq xmlns='jabber:client' type='%s' id='%s'><msgoffline xmlns='msgoffline'%s/></iq>", typ, id, attr)
}

// Each answer has the limit that holds.
func TestOwnLimit(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.bound("juliet/balcony")
		holds := func(raw, limit string) {
			t.Helper()
			c.send(raw)
			got := c.frames()
			if len(got) != 1 || string(got[0].TypeRaw()) != "result" {
				t.Fatalf("%s: %q", raw, briefs(got))
			}
			if m, ok := got[0].Find("msgoffline", "msgoffline"); !ok || m.Attr("limit") != limit {
				t.Errorf("%s: %s, want the limit %s", raw, got[0].Raw(), limit)
			}
		}
		get := limitIQ("get", "g", "")
		holds(get, "100")
		for _, limit := range []string{"10", "0", "false", "7"} {
			holds(limitIQ("set", "s", " limit='"+limit+"'"), limit)
			holds(get, limit)
		}
		for _, bad := range []string{"", " limit=''", " limit='-1'", " limit='+1'", " limit='1.5'", " limit='true'", " limit=' 1'", " limit='0x1'", " limit='1e3'", " limit='99999999999999999999'"} {
			c.send(limitIQ("set", "b", bad))
			c.want("iq error b bad-request")
		}
		holds(get, "7")
		for to, want := range map[string]string{
			testDomain:               "iq error g service-unavailable",
			addr("romeo").String():   "iq error g service-unavailable",
			addr("nobody").String():  "iq error g service-unavailable",
			addr("romeo/x").String(): "iq error g service-unavailable",
		} {
			c.send(strings.Replace(get, " id=", " to='"+to+"' id=", 1))
			c.want(want)
		}
		c.send(strings.Replace(limitIQ("set", "s", " limit='3'"), " id=", " to='"+addr("juliet").String()+"' id=", 1))
		c.want("iq result s")
		if n := w.box.own[addr("juliet")]; n != 3 || len(w.box.own) != 1 {
			t.Errorf("chosen: %v", w.box.own)
		}
		features := func() bool {
			t.Helper()
			c.send("<iq xmlns='jabber:client' type='get' id='d' to='" + addr("juliet").String() + "'><query xmlns='" + nsDiscoInfo + "'/></iq>")
			got := c.frames()
			return len(got) == 1 && strings.Contains(string(got[0].Raw()), "var='msgoffline'")
		}
		if !features() {
			t.Error("not announced to who may choose")
		}
		w.box.fixed = true
		if features() {
			t.Error("announced to who may not choose")
		}
		c.send(limitIQ("set", "s", " limit='5'"))
		c.want("iq error s not-allowed")
		holds(get, "3")
	})
}

// XEP-0160 §4: only storage that there is is announced.
func TestStorageAnnounced(t *testing.T) {
	for _, off := range []bool{false, true} {
		if got := slices.Contains(strings.Split(string(domainInfoOf(!off, false, false)), "'"), "msgoffline"); got == off {
			t.Errorf("switched off: %v, announced: %v", off, got)
		}
	}
}
