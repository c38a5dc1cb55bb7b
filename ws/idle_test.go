package ws

func runIdleServer() bool { return false }
