//go:build unix

package ws

import (
	"net"
	"syscall"
)

// rawConn is the way to the socket below the net package's own buffers; nil when conn is no bare socket.
func rawConn(conn net.Conn) syscall.RawConn {
	sc, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readSocket reads what is there; again says that nothing is.
func readSocket(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		n, err = syscall.Read(int(fd), p)
		switch err {
		case nil:
			return n, false, nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return 0, false, err
		}
	}
}
