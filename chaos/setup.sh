#!/bin/sh
# Installs what the tests of this crate need beside the registry itself: real registry clients, and
# Debian packages to make real images of. Debian only. Safe to run again: what is there is left alone,
# and when everything is there it takes well under a second.
#
#   packages through apt (as root, or through sudo):  skopeo podman docker.io and small helpers
#   into ${TERCET_CACHE:-$HOME/.cache/tercet}/bin:      crane, oras-client (where Go is at hand)
#   into ${TERCET_CACHE:-$HOME/.cache/tercet}/packages: the packages that the images are made of
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${TERCET_CACHE:-${HOME:?HOME is not set}/.cache/tercet}
# Pinned: another version is another client, and a change of the tests.
crane_version=v0.20.6
# The same packages as LAYERS in src/images.rs.
image_packages="base-files bash coreutils dash grep libc-bin libc6 libtinfo6 sed
    perl-base locales tzdata git git-man iso-codes vim-runtime busybox-static"

say() { echo "chaos/setup.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

mkdir -p "$cache/bin" "$cache/packages"

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo -- "$@"
    else
        fail "'$*' needs root, and there is no sudo: run this script as root once"
    fi
}

lists_are_fresh=no
refresh_lists() {
    [ "$lists_are_fresh" = yes ] && return 0
    as_root apt-get update -q >&2
    lists_are_fresh=yes
}

# PROGRAM PACKAGE...: installs the packages if the program is missing.
need() {
    program=$1
    shift
    if command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ]; then
        return 0
    fi
    say "installing $*"
    refresh_lists
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "$@" >&2
}

command -v apt-get >/dev/null 2>&1 || fail "this is not Debian: there is no apt-get"
need tar tar
need gzip gzip
need skopeo skopeo
need podman podman
need dockerd docker.io
# Newer Debian has the command line client in a package of its own.
need docker docker-cli

# ---- the packages that become layers

has_package() { # NAME ARCHITECTURE
    for file in "$cache/packages/$1"_*_"$2".deb "$cache/packages/$1"_*_all.deb; do
        [ -f "$file" ] && return 0
    done
    return 1
}

download() { # NAME, with apt options after it
    name=$1
    shift
    (cd "$cache/packages" && apt-get "$@" download -q "$name" >&2)
}

own=$(dpkg --print-architecture)
for name in $image_packages; do
    has_package "$name" "$own" && continue
    say "downloading $name"
    download "$name" || { refresh_lists; download "$name"; }
done

# The second platform of the two-platform image. Its lists live in a folder of their own, so that the
# machine's apt learns of no foreign architecture.
other=arm64
[ "$own" = arm64 ] && other=amd64
if ! has_package busybox-static "$other"; then
    say "downloading busybox-static for $other"
    state=$(mktemp -d)
    trap 'rm -rf "$state"' EXIT
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    : >"$state/status"
    set -- -o "APT::Architecture=$other" -o "APT::Architectures=$other" \
        -o "Dir::State::Lists=$state/lists" -o "Dir::State::Status=$state/status" \
        -o "Dir::Cache::Archives=$state/archives" -o "Dir::Cache::pkgcache=" \
        -o "Dir::Cache::srcpkgcache="
    apt-get "$@" update -q >&2
    download "busybox-static:$other" "$@"
fi

# ---- the clients that Go builds

without_go="$cache/bin/without-go"
if [ ! -x "$cache/bin/crane-$crane_version" ] || [ ! -x "$cache/bin/oras-client" ] ||
    [ -n "$(find "$here/oras" -type f -newer "$cache/bin/oras-client")" ]; then
    if ! command -v go >/dev/null 2>&1; then
        echo "there was no Go on this machine when chaos/setup.sh ran" >"$without_go"
    elif GOBIN="$cache/bin" go install \
        "github.com/google/go-containerregistry/cmd/crane@$crane_version" >&2 &&
        (cd "$here/oras" && go build -o "$cache/bin/oras-client" .) >&2; then
        # The version is in a second name, so that a new pin is seen.
        rm -f "$cache"/bin/crane-v* "$without_go"
        ln -s crane "$cache/bin/crane-$crane_version"
        touch "$cache/bin/oras-client"
    else
        echo "this machine's $(go version) could not build crane $crane_version or oras-client" \
            >"$without_go"
    fi
    [ ! -f "$without_go" ] || say "$(cat "$without_go"): crane and oras are not tried"
fi
