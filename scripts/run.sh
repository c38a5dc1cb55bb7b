#!/usr/bin/env bash
# Says where the gateway listens and how to talk to it, then becomes it.
set -euo pipefail
cd "$(dirname "$0")/.."
# The demo's people are guests, so it is for this machine only, unless somebody says otherwise.
case "${HOLDFAST_LISTEN:-127.0.0.1:5280}" in
127.*:* | localhost:* | "[::1]":*) export HOLDFAST_DEMO="${HOLDFAST_DEMO:-true}" ;;
esac
setting() { bin/gateway config | sed -n "s/^HOLDFAST_$1=//p"; }
listen=$(setting LISTEN)
scheme=ws
[ -z "$(setting TLS_CERT)" ] || scheme=wss
[ "$(setting DEMO)" != true ] || printf '\n  demo:      %s://%s/\n' "${scheme/ws/http}" "$listen"
cat <<EOF
  clients:   $scheme://$listen/xmpp-websocket   (domains: $(setting DOMAINS))
  operators: http://$(setting ADMIN_LISTEN)/metrics, /healthz, /readyz
  data:      $(setting DATA_DIR)

  Add users from another terminal, while it runs:
    bin/gateway user add juliet          # asks for the password on standard input
    bin/gateway user add romeo --generate
    bin/gateway user import users.csv    # lines of name,password

EOF
exec bin/gateway serve
