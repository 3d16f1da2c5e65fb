#!/bin/sh
# The programs of the system that tests call: installs what is missing as
# root on Debian, else names it. Go's compiler is GCC's: a fifth of the size.
set -eu

missing=
want() {
    command -v "$1" >/dev/null || missing="$missing ${2:-$1}"
}
PATH=$PATH:/usr/sbin
want curl
want nginx
want haproxy
want wrk
want valgrind
want node nodejs
want clang "clang libclang-rt-dev"
command -v go >/dev/null || want gccgo
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$missing"
    # Tests start their own nginx and HAProxy; the package must start none.
    policy=/usr/sbin/policy-rc.d
    if ! [ -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
            --no-install-recommends $missing >/dev/null && exit 0
fi
echo "not installed:$missing; the tests that call them will fail" >&2
