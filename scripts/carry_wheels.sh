#!/bin/sh
# Carries the GPU environment to a machine that reaches no package index.
#
#   carry_wheels.sh pack LIST OUT [MIB]    here: LIST is what `pip list --format=freeze` says on that machine. Writes to
#                                          OUT the wheels that it lacks, in pieces of at most MIB mebibytes (default 1024).
#   carry_wheels.sh install OUT            there, with OUT copied: joins the pieces and installs the wheels.
#
# Both machines need the same Python version and platform: what has no wheel is built here.
#   PIP="python3.11 -m pip"        the pip that fetches, and that installs (default: python3 -m pip)
#   PINS=requirements/gpu.txt      what the environment consists of
set -eu
PIP=${PIP:-python3 -m pip}
here=$(cd "$(dirname "$0")/.." && pwd)
PINS=${PINS:-$here/requirements/gpu.txt}

usage() {
    sed -n '4,7s/^# *//p' "$0" >&2
    exit 2
}

# The pins whose name and version LIST does not have, each with its hashes. A version's local part (2.13.0+cu128) says
# which build it is, and does not count; names are compared as pip does, without case, with - for _ and a dot.
lacking() {
    awk '
        function plain(name) { name = tolower(name); gsub(/[-_.]+/, "-", name); return name }
        FNR == NR { gsub(/==/, " "); sub(/\+.*/, "", $2); if (NF >= 2) has[plain($1)] = $2; next }
        /^[A-Za-z0-9]/ { split($1, pin, "=="); wanted = !((plain(pin[1]) in has) && has[plain(pin[1])] == pin[2]) }
        /^#/ { next }
        wanted { print }
    ' "$1" "$PINS"
}

pack() {
    list=$1 out=$2 mib=${3:-1024}
    [ -r "$list" ] || { echo "$list cannot be read: write it there with 'pip list --format=freeze'" >&2; exit 2; }
    case $mib in '' | 0* | *[!0-9]*) echo "$mib is no number of mebibytes: name 1 or more" >&2; exit 2 ;; esac
    [ ! -e "$out" ] || { echo "$out exists already: name a folder that does not" >&2; exit 2; }
    mkdir -p "$out"
    aside=$(mktemp -d "$out/.aside.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    lacking "$list" > "$aside/lacking.txt"
    if [ ! -s "$aside/lacking.txt" ]; then
        echo "that machine lacks nothing of $PINS"
        return
    fi
    $PIP wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$aside/wheels" -r "$aside/lacking.txt"
    # Wheels are compressed already. Sorted, so that the same wheels are the same pieces.
    (cd "$aside/wheels" && tar -cf - -- *.whl) | split -b "${mib}m" -d -a 4 - "$out/wheels.tar."
    (cd "$out" && sha256sum wheels.tar.* > SHA256SUMS)
    echo "$(find "$aside/wheels" -name '*.whl' | wc -l) wheels in $(find "$out" -name 'wheels.tar.*' | wc -l) pieces:" \
        "copy $out there, then: carry_wheels.sh install $out"
}

unpack() {
    out=$1
    [ -r "$out/SHA256SUMS" ] || { echo "$out holds no SHA256SUMS: name a folder that pack has written" >&2; exit 2; }
    (cd "$out" && sha256sum --check --quiet SHA256SUMS >&2) || {
        echo "a piece is missing or damaged: copy it again; nothing was installed" >&2
        exit 1
    }
    aside=$(mktemp -d "$out/.aside.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    cat "$out"/wheels.tar.* | tar -xf - -C "$aside"
    $PIP install --quiet --disable-pip-version-check --no-index --no-deps "$aside"/*.whl
    echo "installed $(find "$aside" -name '*.whl' | wc -l) wheels"
}

case ${1:-} in
    pack) [ $# -ge 3 ] && [ $# -le 4 ] || usage; shift; pack "$@" ;;
    install) [ $# -eq 2 ] || usage; unpack "$2" ;;
    *) usage ;;
esac
