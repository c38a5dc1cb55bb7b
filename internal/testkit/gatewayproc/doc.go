// Package gatewayproc builds the gateway's binary once for a test process and runs it as a child process: on free
// ports, with its own data directory, killed with SIGKILL or asked to go with SIGTERM, and started again on the same
// ports and data. Its log is kept and shown when the test fails. StartNodes runs several of them as a cluster.
package gatewayproc
