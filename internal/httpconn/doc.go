// Package httpconn serves long polls: the POST requests to one path on connections that were taken from net/http, with one
// goroutine for each connection and no buffers while nothing happens.
//
// net/http has a second goroutine read from a connection as long as a handler runs, to find out when the client hangs up,
// and keeps two buffers of 4 KiB. For a request that is held for a minute and answered in a microsecond that is most of
// what it costs. Here the goroutine that serves the request reads ahead itself while it waits ([Conn.Wait]), and is
// interrupted when there is an answer ([Conn.Wake]).
//
// Requests are read by [http.ReadRequest]. Whatever is not an ordinary POST to the path (another path or method, a head that
// does not fit into a small buffer, bytes that are no HTTP) is not looked at: the connection goes back to the
// [http.Server] that it came from, with everything that has not been read.
//
// Invariants:
//
//   - a connection has one request at a time; what the client sends meanwhile waits, a buffer of it here, the rest in its socket;
//   - no deadline is set on the ordinary way: a goroutine of the [Pool] looks a few times within each limit for
//     connections that have been idle, or have been written to, for too long;
//   - after [Pool.Drain] there is neither a connection nor a goroutine.
package httpconn
