// Package postgresproc runs one PostgreSQL server for a test process, from the binaries that are installed: with its
// own data in a temporary directory, on a free port of 127.0.0.1, with a fresh database for each test that asks. Tests
// may stop it, kill it, freeze it and start it again. A missing PostgreSQL fails the test.
//
// PostgreSQL refuses to run as root; for root it runs as the system's user postgres. The server ends with the test
// process, however that ends, and nothing is ended but what was started here. A TestMain runs its tests through Main,
// which removes everything.
package postgresproc
