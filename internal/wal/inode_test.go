package wal

import (
	"os"
	"syscall"
)

func inode(st os.FileInfo) any { return st.Sys().(*syscall.Stat_t).Ino }
