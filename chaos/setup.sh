#!/bin/sh
# Installs what the tests of this crate need beside the registry itself: real registry clients, and
# Debian packages to make real images of. Debian only. Safe to run again: what is there is left alone,
# and when everything is there it takes well under a second.
#
#   packages through apt (as root, or through sudo):  docker.io podman buildah skopeo containerd haproxy,
#                                                       what the fault scenarios hurt replicas with (nftables,
#                                                       strace, libfaketime, e2fsprogs), valgrind and small helpers
#   into ${TERCET_CACHE:-$HOME/.cache/tercet}/bin:      etcd, docker-registry and nginx, out of Debian's packages, to
#                                                       compare with
#   into ${TERCET_CACHE:-$HOME/.cache/tercet}/bin:      crane, oras, regctl, helm, cosign and the
#                                                       OCI conformance suites (where Go is at hand),
#                                                       and Chaos Mesh's admission checks
#   into ${TERCET_CACHE:-$HOME/.cache/tercet}/python:   Chaos Toolkit, from PyPI
#   into ${TERCET_CACHE:-$HOME/.cache/tercet}/packages: the packages that the images are made of
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${TERCET_CACHE:-${HOME:?HOME is not set}/.cache/tercet}
# The same packages as LAYERS in src/images.rs.
image_packages="base-files bash coreutils dash grep libc-bin libc6 libtinfo6 sed
    perl-base locales tzdata git git-man iso-codes vim-runtime busybox-static"

say() { echo "chaos/setup.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

mkdir -p "$cache/bin" "$cache/packages"

# One run at a time. --close: a service that a package starts must not hold the lock on.
if [ "${TERCET_SETUP_LOCKED:-}" != yes ]; then
    TERCET_SETUP_LOCKED=yes exec flock --close "$cache/setup.lock" sh "$0" "$@"
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo -- "$@"
    else
        fail "'$*' needs root, and there is no sudo: run this script as root once"
    fi
}

# COMMAND...: runs it, and once more if it fails: mirrors have moments, and so have locks of another apt.
twice() {
    "$@" && return 0
    say "'$*' failed; once more"
    sleep 10
    "$@"
}

lists_are_fresh=no
refresh_lists() {
    [ "$lists_are_fresh" = yes ] && return 0
    twice as_root apt-get update -q >&2
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
        apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends "$@" >&2
}

command -v apt-get >/dev/null 2>&1 || fail "this is not Debian: there is no apt-get"
need tar tar
need gzip gzip
need skopeo skopeo
need podman podman
need buildah buildah
need containerd containerd
need haproxy haproxy
need dockerd docker.io
# Newer Debian has the command line client in a package of its own.
need docker docker-cli
# Network namespaces and partitions, failing system calls, small file systems, for the fault scenarios.
need ip iproute2
need nft nftables
need nsenter util-linux
need strace strace
need mkfs.ext4 e2fsprogs
# Counts the instructions of the hot paths.
need valgrind valgrind

# A library has no program to look for. The replicas of the clock scenarios are started with it.
have_libfaketime() {
    for file in /usr/lib/*/faketime/libfaketime.so.1; do
        [ -f "$file" ] && return 0
    done
    return 1
}
if ! have_libfaketime; then
    say "installing libfaketime"
    refresh_lists
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends libfaketime >&2
fi

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
    twice apt-get "$@" update -q >&2
    download "busybox-static:$other" "$@"
fi

# ---- what Tercet is measured beside

# Unpacked and not installed: the packages would start services.
unpack() { # PACKAGE FILE
    [ -x "$cache/bin/$(basename "$2")" ] && return 0
    say "unpacking $1"
    unpacked=$(mktemp -d)
    fetch_package() { (cd "$unpacked" && apt-get download -q "$1" >&2); }
    fetch_package "$1" || { refresh_lists; fetch_package "$1"; }
    dpkg-deb -x "$unpacked/$1"_*.deb "$unpacked/root"
    mv "$unpacked/root/$2" "$cache/bin/"
    rm -rf "$unpacked"
}
unpack etcd-server usr/bin/etcd
unpack docker-registry usr/bin/docker-registry
unpack nginx usr/sbin/nginx
# Its only library that nothing else here needs.
if ! ldd "$cache/bin/nginx" | grep -q 'libpcre2-8.* => /'; then
    say "installing libpcre2-8-0"
    refresh_lists
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends libpcre2-8-0 >&2
fi

# ---- the clients that Go builds

# A tool that is there has a second name with its version, so that a new pin is seen. One that cannot be
# built leaves a reason behind, which its tests print instead of running.
is_built() { # NAME VERSION
    [ -x "$cache/bin/$1" ] && [ -e "$cache/bin/$1-$2" ]
}

built() { # NAME VERSION
    rm -f "$cache/bin/$1"-v* "$cache/bin/without-$1"
    ln -s "$1" "$cache/bin/$1-$2"
}

without() { # NAME REASON
    rm -f "$cache/bin/$1" "$cache/bin/$1"-v*
    echo "$2" >"$cache/bin/without-$1"
    say "$1 is not tried: $2"
}

# NAME VERSION COMMAND...: runs the command, which puts NAME into $cache/bin, unless that version is there.
need_go_tool() {
    name=$1
    version=$2
    shift 2
    if is_built "$name" "$version"; then
        return 0
    elif ! command -v go >/dev/null 2>&1; then
        without "$name" "there was no Go on this machine when chaos/setup.sh ran"
    elif say "building $name $version" && "$@" >&2; then
        built "$name" "$version"
    else
        without "$name" "this machine's $(go version) could not build $name $version"
    fi
}

go_install() { # MODULE VERSION
    # Without debug information: cosign alone is a third smaller.
    GOBIN="$cache/bin" go install -ldflags="-s -w" "$1@$2"
}

# `go install` refuses the module oras.land/oras where the checksum database does not serve it. The go.sum in
# chaos/oras pins the module's hash instead, and those of all that it is made of.
build_oras() {
    metadata=oras.land/oras/internal/version.BuildMetadata
    (cd "$here/oras" && go build -buildvcs=false -ldflags="-s -w -X $metadata=" \
        -o "$cache/bin/oras" oras.land/oras/cmd/oras)
}
oras_version=$(sed -n 's|^.*oras.land/oras \(v[0-9.]*\).*|\1|p' "$here/oras/go.mod")

# Pinned: another version is another client, and a change of the tests and of docs/src/clients.md.
install_pinned() { # NAME VERSION MODULE
    need_go_tool "$1" "$2" go_install "$3" "$2"
}
install_pinned crane v0.20.6 github.com/google/go-containerregistry/cmd/crane
install_pinned regctl v0.11.7 github.com/regclient/regclient/cmd/regctl
install_pinned helm v3.22.0 helm.sh/helm/v3/cmd/helm
install_pinned cosign v3.1.3 github.com/sigstore/cosign/v3/cmd/cosign
need_go_tool oras "$oras_version" build_oras

# The OCI conformance suite. The last one before its redesign, for version 1.1, is pinned in chaos/conformance
# and is a test program, which `go install` does not make. Where there is Go it has to be there: without it
# nothing would say that the registry keeps to the specification.
build_conformance() {
    (cd "$here/conformance" && go test -c -o "$cache/bin/oci-conformance-1.1" \
        github.com/opencontainers/distribution-spec/conformance)
}
conformance_version=$(sed -n 's|^require .*/conformance \(v0[^ ]*\).*|\1|p' "$here/conformance/go.mod")
if command -v go >/dev/null 2>&1 && ! is_built oci-conformance-1.1 "$conformance_version"; then
    say "building oci-conformance-1.1 $conformance_version"
    # Of an earlier run: it would let the tests go without.
    rm -f "$cache/bin/without-oci-conformance-1.1"
    build_conformance >&2 ||
        fail "this machine's $(go version) could not build the conformance suite in chaos/conformance (see above)"
    built oci-conformance-1.1 "$conformance_version"
fi
need_go_tool oci-conformance-1.1 "$conformance_version" build_conformance

# The redesigned suite of the specification's main branch is a program, called as its folder is.
install_conformance() { # VERSION
    made=$(mktemp -d)
    GOBIN="$made" go install "github.com/opencontainers/distribution-spec/conformance@$1" &&
        mv "$made/conformance" "$cache/bin/oci-conformance" && rmdir "$made"
}
main_suite=v0.0.0-20260716174315-967efdc079b9
need_go_tool oci-conformance "$main_suite" install_conformance "$main_suite"

# Chaos Mesh's own admission checks, for chaos/kubernetes/validate.py. The checksum is that of our part of it.
build_admission() {
    (cd "$here/kubernetes/admission" && go build -buildvcs=false -ldflags="-s -w" -o "$cache/bin/chaos-mesh-admission" .)
}
admission_version=$(sed -n 's|^.*chaos-mesh/api \(v0[^ ]*\).*|\1|p' "$here/kubernetes/admission/go.mod")
admission_version=$admission_version-$(cksum <"$here/kubernetes/admission/main.go" | tr ' ' -)
need_go_tool chaos-mesh-admission "$admission_version" build_admission

# ---- Chaos Toolkit

# In a venv, by wheels with pinned hashes. Debian has the module that makes one in a package of its own.
if ! cmp -s "$here/experiments/requirements.txt" "$cache/python/requirements.txt"; then
    need python3 python3
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        say "installing python3-venv"
        refresh_lists
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends python3-venv >&2
    fi
    say "installing chaostoolkit"
    rm -rf "$cache/python"
    python3 -m venv "$cache/python" >&2
    twice "$cache/python/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: -r "$here/experiments/requirements.txt" >&2
    cp "$here/experiments/requirements.txt" "$cache/python/requirements.txt"
fi
