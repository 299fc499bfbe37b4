# Sourced by the scripts that unpack Debian packages into the tools folder: nothing is installed, nothing outside of the
# folder is touched, no root is needed. `dpkg -i` or a line in /etc/apt would let another suite into the whole system.
#
# What a suite delivers is checked by apt: its index is signed with Debian's key, and has the sha256 of each package.
# shellcheck shell=bash

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=${CLUSTER_LOCK_TOOLS:-$checkout/.tools}
mkdir -p "$tools/bin"
tools=$(cd "$tools" && pwd)
export CLUSTER_LOCK_TOOLS=$tools

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# Two runs at once (tox, a person) take turns.
take_turn() {
    exec 9>"$tools/.lock"
    flock 9
    rm -rf "$tools"/.download.*  # of one that was ended
}

need_apt() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        die "cannot install $1: this system has no apt; put the program on PATH or into $tools/bin yourself"
    fi
}

# The mirror of this system itself: no other host is named here.
mirror() {
    local found
    # shellcheck disable=SC2016  # $(REPO_URI) is apt's
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -v security | head -1 || true)
    # apt knows no index targets before its first update, but its sources do.
    [ -n "$found" ] || found=$(sed -nE 's/^(deb( \[[^]]*\])?|URIs:) +([a-z+]+:[^ ]+).*/\3/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
        grep -v security | head -1 || true)
    [ -n "$found" ] || die "no Debian mirror is configured in /etc/apt"
    echo "$found"
}

# apt with lists, caches and a state of its own, for one suite: suite_apt SUITE apt-get|apt-cache ARGUMENTS
suite_apt() {
    local dir=$tools/apt/$1 program=$2
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
    if [ ! -e "$dir/suite.sources" ]; then
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: %s\nSigned-By: %s\n' \
            "$(mirror)" "$1" "$(dpkg --print-architecture)" /usr/share/keyrings/debian-archive-keyring.gpg \
            >"$dir/suite.sources"
    fi
    shift 2
    # Error-Mode=any: without it a failed update exits 0 and the download after it fails with a riddle.
    "$program" -q -o Dir::Etc::sourcelist="$dir/suite.sources" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::Lists="$dir/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$dir/cache" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o APT::Update::Error-Mode=any "$@"
}

suite_update() {
    [ -e "$tools/apt/$1/updated" ] && return
    suite_apt "$1" apt-get update >"$tools/apt-update.log" 2>&1 ||
        die "the package mirror does not answer for Debian $1: see $tools/apt-update.log"
    touch "$tools/apt/$1/updated"
}

# suite_download SUITE FOLDER PACKAGE...
suite_download() {
    local suite=$1 into=$2
    shift 2
    suite_update "$suite"
    (cd "$into" && suite_apt "$suite" apt-get download "$@") >"$tools/apt-download.log" 2>&1 && return
    # The suite has moved on since its lists were read.
    rm -f "$tools/apt/$suite/updated"
    suite_update "$suite"
    (cd "$into" && suite_apt "$suite" apt-get download "$@") >"$tools/apt-download.log" 2>&1 ||
        die "could not download $*: see $tools/apt-download.log"
}
