#!/bin/sh
# install.sh PYTHON STAMP PINS: make the environment that STAMP lies in from PINS, then dynalign itself, editable. Run by the Makefile, in the
# repository's root. STAMP is created last, so that an interrupted install is noticed, removed and made again.
set -eu
python=$1 stamp=$2 pins=$3
venv=${stamp%/*}

exec 9<"$pins"  # held until this process ends; any file of the checkout would do
flock -n 9 || { echo "waiting for another make that installs here (at most 15 minutes)"; flock -w 900 9; }
[ -e "$stamp" ] && exit 0

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "dynalign needs Python 3.11 or newer; '$python' is $("$python" -V 2>/dev/null || echo missing): make PYTHON=/path/to/python3.11" >&2
    exit 1
}
[ -e $venv/.installing ] && echo "the last install was interrupted: making $venv again" && rm -rf $venv
$venv/bin/python -c '' 2>/dev/null || rm -rf $venv
mkdir -p $venv && touch $venv/.installing && rm -f $venv/.installed-*
echo "installing into $venv (2.7 GB, with CUDA 8.6; a minute or more the first time, afterwards only what changed)"
[ -e $venv/bin/python ] || "$python" -m venv $venv
$venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements/uv.txt

# uv reads neither the PIP_* variables nor pip's configuration files: hand on what decides where packages come from.
pip_setting() {
    $venv/bin/python -m pip config list | sed -nE "s/^(:env:\.|global\.|install\.)$1='(.*)'\$/\2/p" | sed 's/\\n/ /g' | tr -s ' \n' ',' | sed 's/^,//; s/,$//'
}
links=${UV_FIND_LINKS:-$(pip_setting find-links)}
index=${UV_DEFAULT_INDEX:-$(pip_setting index-url)}
certificates=${SSL_CERT_FILE:-$(pip_setting cert)}
[ -n "$index" ] && export UV_DEFAULT_INDEX="${index%%,*}"
[ -n "$certificates" ] && export SSL_CERT_FILE="${certificates%%,*}"
install() { $venv/bin/uv pip install --quiet --python $venv/bin/python --no-deps "$@"; }

# A CPU build of torch: a wheel among pip's find-links where one is configured, else from torch's own index, which uv knows.
if torch=$(grep '^torch==.*+cpu' "$pins"); then
    { [ -n "$links" ] && UV_FIND_LINKS=$links install --no-index "$torch" 2>/dev/null; } || install --torch-backend cpu "$torch"
fi
install -r "$pins"
# compat: a plain path entry, so that a regular package wins over a folder of the same name wherever the command runs.
# Bytecode: where PYTHONDONTWRITEBYTECODE is set, every actor would compile torch and vLLM anew, 13 s of a core each.
install --compile-bytecode --no-build-isolation --config-settings editable_mode=compat --editable .
rm $venv/.installing && touch "$stamp"
