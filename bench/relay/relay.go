// Package relay is the least that a WebSocket messenger can do: it accepts connections with coder/websocket and
// writes every message, as it is, to the connection whose name the message begins with. There is no XML, no
// account, no state beyond a table of connections. What it takes is the floor under any gateway built on that
// library, and the measure that bench/cmd/suite holds one against.
//
// A connection names itself in its address: /relay?id=00000001, IDLength characters.
//
// Goroutines: one for each connection, the HTTP server's own, reading; a message is written by the reader of its
// sender. mu guards the table; accepting is held for reading from before a connection's client is told that it is
// accepted until it is in the table.
package relay

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/coder/websocket"
)

// IDLength is the length of a recipient's name at the start of every message, in bytes.
const IDLength = 8

// Relay is an http.Handler for connections.
type Relay struct {
	accepting sync.RWMutex
	mu        sync.RWMutex
	conns     map[string]*websocket.Conn
}

// New makes a relay without connections.
func New() *Relay {
	return &Relay{conns: make(map[string]*websocket.Conn)}
}

// ServeHTTP accepts one connection and relays what it says until it goes.
func (r *Relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	id := req.URL.Query().Get("id")
	if len(id) != IDLength {
		http.Error(w, "id has the wrong length", http.StatusBadRequest)
		return
	}
	conn, err := r.accept(w, req, id)
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	defer r.forget(id, conn)

	ctx := context.Background()
	buf := make([]byte, 512)
	for {
		kind, body, err := conn.Reader(ctx)
		if err != nil {
			return
		}
		n := 0
		for {
			if n == len(buf) {
				buf = append(buf, make([]byte, len(buf))...)
			}
			m, err := body.Read(buf[n:])
			n += m
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
		}
		if n < IDLength {
			return
		}
		if to := r.find(buf[:IDLength]); to != nil {
			// A write that fails ends the recipient's connection, which its own reader notices.
			_ = to.Write(ctx, kind, buf[:n])
		}
	}
}

func (r *Relay) accept(w http.ResponseWriter, req *http.Request, id string) (*websocket.Conn, error) {
	r.accepting.RLock()
	defer r.accepting.RUnlock()
	conn, err := websocket.Accept(w, req, &websocket.AcceptOptions{Subprotocols: []string{"xmpp"}})
	if err == nil {
		r.mu.Lock()
		r.conns[id] = conn
		r.mu.Unlock()
	}
	return conn, err
}

func (r *Relay) find(id []byte) *websocket.Conn {
	r.mu.RLock()
	conn := r.conns[string(id)]
	r.mu.RUnlock()
	if conn != nil {
		return conn
	}
	r.accepting.Lock()   // who is written to may know that it is accepted before the table does
	r.accepting.Unlock() //nolint:staticcheck // an empty section: it waits for whoever is in it
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.conns[string(id)]
}

func (r *Relay) forget(id string, conn *websocket.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns[id] == conn {
		delete(r.conns, id)
	}
}
