// Package e2e tests the gateway's binary from outside: with stock clients from npm, over WebSocket and BOSH, under Node and
// in pages in headless Chromium (folder clients), with the model clients of internal/testkit, and with ill-behaved
// connections. The network between them breaks on command, and the gateway is killed and started again. The tests of
// clusters run several gateways over Redis and PostgreSQL of their own, some of them behind HAProxy with TLS; there
// gateways are also paused and drained, and Redis and PostgreSQL go away and come back.
//
// Everything here takes seconds to minutes and is skipped by `go test -short`. The random schedules are drawn from
// E2E_SEED, which is printed; E2E_SCALE multiplies the lengths of the runs. The widget of
// webclient/ is driven as people do it, and pictures of it are left in artifacts/; E2E_SCREENSHOTS names another folder, and
// has pictures taken of the other pages too.
package e2e
