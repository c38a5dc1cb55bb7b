#!/bin/sh
# Makes a self-signed certificate for $HOST as HAProxy reads it, unless there is one. For a real one put the chain and
# the key, one behind the other, into the same file of the volume and restart the balancer.
set -eu
file=/certificates/holdfast.pem
[ ! -s "$file" ] || exit 0
command -v openssl >/dev/null || apk add --no-cache openssl
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
	-subj "/CN=$HOST" -addext "subjectAltName=DNS:$HOST,DNS:localhost" \
	-keyout /tmp/key.pem -out /tmp/chain.pem
cat /tmp/chain.pem /tmp/key.pem >"$file.new"
chown 99:99 "$file.new" # whom the balancer's image runs as
chmod 0400 "$file.new"
mv "$file.new" "$file"
