//go:build !unix

package ws

import (
	"net"
	"syscall"
)

// rawConn is not used here: reads go through the net package and a small buffer of their own.
func rawConn(net.Conn) syscall.RawConn { return nil }

func readSocket(uintptr, []byte) (n int, again bool, err error) { return 0, false, syscall.EINVAL }
