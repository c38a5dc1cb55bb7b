package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

type pipeListener struct {
	net.Listener
	conns chan net.Conn
}

func (l pipeListener) Accept() (net.Conn, error) { return <-l.conns, nil }

type addressed struct {
	net.Conn
	addr net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.addr }

// accept hands one end of a pipe through a listener and returns it with the other end.
func accept(t *testing.T, from string) (server, client net.Conn) {
	t.Helper()
	tr, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	conns := make(chan net.Conn, 1)
	conns <- addressed{a, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	server, err = tr.Listener(pipeListener{conns: conns}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return server, b
}

func v2(t *testing.T) string {
	h := proxyproto.HeaderProxyFromAddrs(2,
		net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.8:77")), net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:443")))
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestListener(t *testing.T) {
	const v1 = "PROXY TCP4 192.0.2.8 192.0.2.1 77 443\r\n"
	for _, tt := range []struct {
		name, from, sent, addr, read string
	}{
		{"version 1", "127.0.0.1:5", v1 + "GET / HTTP/1.1\r\n", "192.0.2.8:77", "GET / HTTP/1.1\r\n"},
		{"version 2", "127.0.0.1:5", v2(t) + "GET / HTTP/1.1\r\n", "192.0.2.8:77", "GET / HTTP/1.1\r\n"},
		{"UNKNOWN", "127.0.0.1:5", "PROXY UNKNOWN\r\nGET", "127.0.0.1:5", "GET"},
		{"no line", "127.0.0.1:5", "GET / HTTP/1.1\r\n", "127.0.0.1:5", "GET / HTTP/1.1\r\n"},
		{"a POST looks like the start of one", "127.0.0.1:5", "POST / HTTP/1.1\r\n", "127.0.0.1:5", "POST / HTTP/1.1\r\n"},
		{"stranger's line is data", "192.0.2.66:5", v1, "192.0.2.66:5", v1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, client := accept(t, tt.from)
			go func() {
				_, _ = client.Write([]byte(tt.sent))
				_ = client.Close()
			}()
			if got := server.RemoteAddr().String(); got != tt.addr {
				t.Errorf("address %s, want %s", got, tt.addr)
			}
			got, err := io.ReadAll(server)
			if err != nil || string(got) != tt.read {
				t.Errorf("read %q, %v; want %q", got, err, tt.read)
			}
			if c, ok := server.(*Conn); ok {
				if _, ok := c.Unwrap().(addressed); !ok {
					t.Error("still wrapped after all was read")
				}
			}
		})
	}
}

func TestListenerMalformedLine(t *testing.T) {
	server, client := accept(t, "127.0.0.1:5")
	go func() { _, _ = client.Write([]byte("PROXY TCP4 nonsense\r\n")) }()
	if _, err := server.Read(make([]byte, 10)); err == nil {
		t.Error("a malformed line was accepted")
	}
	if got := server.RemoteAddr().String(); got != "127.0.0.1:5" {
		t.Errorf("address %s", got)
	}
}

func TestListenerSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := accept(t, "127.0.0.1:5")
		begin := time.Now()
		if got := server.RemoteAddr().String(); got != "127.0.0.1:5" {
			t.Errorf("address %s", got)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("waited %v for the line", took)
		}
		_ = client.Close()
		if _, err := server.Read(make([]byte, 1)); err == nil {
			t.Error("read from a silent connection")
		}
	})
}

func TestListenerAcceptError(t *testing.T) {
	tr, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	if _, err := tr.Listener(ln).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
