// Package haproxyproc runs HAProxy in front of gateways under test: TLS with a certificate of an authority that the
// package makes, round-robin over the backends, no stickiness, health checks on /readyz, the forwarding headers that
// the gateway reads. A client that comes while a backend is dead gets another one at once; connections that stand are
// left alone when a check fails.
//
// HAProxy is ended by its process id, and by the kernel when the test binary dies. A machine without it fails the test.
package haproxyproc
