package postgresproc

import (
	"os"
	"syscall"
)

// Run starts a server for a program that is no test, until Close.
func Run() (*Server, error) { return create() }

// Close ends the server and deletes its data.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.end(syscall.SIGQUIT) // its data go anyway
	_ = os.RemoveAll(s.dir)
}

// Database makes a database and returns its URL.
func (s *Server) Database(name string) (string, error) {
	if err := s.run("CREATE DATABASE " + name); err != nil {
		return "", err
	}
	return s.url(name), nil
}

// PIDs are the server's processes: the first one, then those of the connections and of the background.
func (s *Server) PIDs() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	return append([]int{s.cmd.Process.Pid}, children(s.cmd.Process.Pid)...)
}
