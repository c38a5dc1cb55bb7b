package redisproc

// Run starts a server for a program that is no test, until Close. args are redis-server's.
func Run(args ...string) (*Server, error) { return start("redis", nil, args...) }

// Close ends the server and removes what it left.
func (s *Server) Close() { s.discard(nil)() }

// PID is the process that runs now.
func (s *Server) PID() int { return s.proc.Pid }
