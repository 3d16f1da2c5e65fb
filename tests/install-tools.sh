#!/bin/sh
# The programs of the system that tests and benchmarks call, or those named:
# installs what is missing as root on Debian, else names it.
# Go's compiler is GCC's: a fifth of the size.
set -eu

asked=${*:-curl nginx haproxy wrk valgrind node clang go}
missing=
want() {
    case " $asked " in
    *" $1 "*) command -v "$1" >/dev/null || missing="$missing ${2:-$1}" ;;
    esac
}
PATH=$PATH:/usr/sbin
want curl
want nginx
want haproxy
want wrk
want valgrind
want node nodejs
want clang "clang libclang-rt-dev"
command -v gccgo >/dev/null || want go gccgo
case " $asked " in
*" ev.h "*) [ -e /usr/include/ev.h ] || missing="$missing libev-dev" ;;
esac
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
echo "not installed:$missing; what calls them will fail" >&2
