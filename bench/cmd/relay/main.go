// Command relay runs the bare relays of bench/relay: /relay and /poll.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"holdfast/bench/relay"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:5290", "address to listen on")
	flag.Parse()
	if err := run(*listen); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/relay", relay.New())
	mux.Handle("/poll", relay.NewPoll())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 30 * time.Second}
	return server.Serve(l)
}
