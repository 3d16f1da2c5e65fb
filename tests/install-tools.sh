#!/bin/sh
# The programs of the system that tests call: installs what is missing as
# root on Debian, else names it.
set -eu

missing=
for tool in curl; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing"
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
            --no-install-recommends $missing >/dev/null && exit 0
fi
echo "not installed:$missing; the tests that call them will fail" >&2
