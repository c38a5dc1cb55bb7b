#!/usr/bin/env bash
# Says where the gateway listens and how to talk to it, then becomes it.
set -euo pipefail
cd "$(dirname "$0")/.."
setting() { bin/gateway config | sed -n "s/^HOLDFAST_$1=//p"; }
listen=$(setting LISTEN)
scheme=ws
[ -z "$(setting TLS_CERT)" ] || scheme=wss
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
