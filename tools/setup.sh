#!/usr/bin/env bash
# Makes tools/venv: a Python environment with ESPnet, this package and its dependencies.
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi
set -euo pipefail

root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
venv="${root}/tools/venv"
stamp="${venv}/.complete"
needed_gb=9

python=""
into=""
extras="mini,slurm,test"
pip_args=""
check=false
quiet_if_complete=false
HOME="${HOME:-/}"

help_message="Usage: tools/setup.sh [--option VALUE]…

  --python PATH    Python 3.12 or 3.13 for tools/venv (default: the first suitable one found on PATH,
                   in pyenv, conda or uv).
  --into PYTHON    Install into this Python's environment instead of tools/venv. Use it afterwards
                   by activating the environment or by ESPNET_SMOP_PYTHON=PYTHON.
  --extras LIST    Extras of setup.py to install (default ${extras}; also landmarks, gguf, nf4).
  --pip_args ARGS  More arguments for pip install, e.g. \"--index-url URL\".
  --check B        Install nothing; report what is installed and what is missing.
  --quiet_if_complete B  Print nothing if there is nothing to do (default ${quiet_if_complete}).

PyTorch's packages include CUDA: about 7 GB in all. Safe to run again: a complete environment is
kept, an incomplete one is made again, and a changed setup.py is installed."

# shellcheck source=/dev/null
. "${root}/egs2/TEMPLATE/avsr_smop1/scripts/utils/option_error.sh"
die() {
    echo "setup.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            echo "${help_message}"
            exit 0
            ;;
        --check)
            check=true
            case "${2:-}" in true | false) check="$2"; shift ;; esac
            shift
            ;;
        --python | --into | --extras | --pip_args | --quiet_if_complete)
            [ $# -ge 2 ] || smop_option_error "option $1 needs a value"
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        *) smop_check_option "$1" "${help_message}" ;;
    esac
done

# Prints "3.12.4" if this Python runs and is suitable, otherwise why it is not.
try_python() { # PYTHON
    "$1" -c 'if True:
        import sys
        if not (3, 12) <= sys.version_info[:2] <= (3, 13):
            sys.exit("is Python %d.%d; 3.12 or 3.13 is needed" % sys.version_info[:2])
        try:
            import ensurepip, venv
        except ImportError:
            sys.exit("has no venv module; on Debian install python3-venv")
        print("%d.%d.%d" % sys.version_info[:3])' 2>&1
}

# All candidate Pythons, best first. pyenv's shims may exist and fail, so each is tried.
candidates() {
    local name
    for name in python3.12 python3.13 python3 python; do
        type -ap "${name}" || true
    done
    local pyenv="${PYENV_ROOT:-${HOME}/.pyenv}" home file
    for file in "${pyenv}"/versions/3.12*/bin/python "${pyenv}"/versions/3.13*/bin/python \
        "${HOME}"/.local/share/uv/python/*3.1[23]*/bin/python3; do
        echo "${file}"
    done
    for home in "${CONDA_PREFIX:-}" "${HOME}"/{miniconda3,miniforge3,mambaforge,anaconda3,.conda} \
        /opt/{conda,miniconda3,miniforge3,anaconda3}; do
        [ -n "${home}" ] || continue
        for file in "${home}/bin/python" "${home}"/envs/*/bin/python; do echo "${file}"; done
    done
}

find_python() {
    local candidate answer
    if [ -n "${python}" ]; then
        command -v "${python}" > /dev/null || die "--python ${python} does not exist"
        answer="$(try_python "${python}")" || die "--python ${python} is not suitable: ${answer##*$'\n'}"
        command -v "${python}"
        return
    fi
    while read -r candidate; do
        if [ -x "${candidate}" ] && try_python "${candidate}" > /dev/null; then
            echo "${candidate}"
            return
        fi
    done < <(candidates)
    die "no Python 3.12 or 3.13 found on PATH, under pyenv, conda or uv. Install one (Debian:" \
        "python3.12 python3.12-venv; pyenv install 3.12; conda create -n py312 python=3.12) or" \
        "give --python PATH"
}

# The stamp of a complete environment; a change triggers an update.
state() {
    echo "setup.py $(cksum < "${root}/setup.py")"
    echo "extras ${extras}"
}

is_complete() {
    [ -f "${stamp}" ] && [ "$(cat "${stamp}")" = "$(state)" ] && "${venv}/bin/python" -c "" 2> /dev/null
}

# Whether tools/venv was made with the Python of --python, or with any if that is not given.
has_wanted_python() {
    local origin='import sys; print(sys.base_prefix, sys.version)'
    [ -z "${python}" ] || [ "$("${venv}/bin/python" -c "${origin}")" = "$("${python}" -c "${origin}")" ]
}

# Imports what the recipe needs: pip may succeed and the packages still fail to load.
imports() { # PYTHON
    "$1" -c 'import espnet2, espnet_smop, peft, torch, transformers' 2>&1
}

free_gb() { # DIRECTORY
    df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }'
}

install() { # PYTHON
    local more=() all="recipes${extras:+,${extras}}"
    if [ -n "${pip_args}" ]; then read -r -a more <<< "${pip_args}"; fi
    echo "installing espnet_smop[${all}] with ESPnet and PyTorch (several GB, some minutes)"
    "$1" -m pip install --disable-pip-version-check "${more[@]}" -e "${root}[${all}]" \
        || die "pip failed, see above. What was downloaded is cached: run this again"
    local answer
    answer="$(imports "$1")" || die "installed, but the import fails: ${answer##*$'\n'}"
}

report() {
    local ok=true used="" answer line
    say() { printf '%-12s %s\n' "$1" "$2"; }
    if [ -n "${into}" ]; then
        used="${into}"
        say environment "${into}"
    elif is_complete; then
        used="${venv}/bin/python"
        say environment "${venv}, complete"
    elif [ -f "${stamp}" ]; then
        used="${venv}/bin/python"
        say environment "${venv}, made from another setup.py or other extras: run tools/setup.sh"
        ok=false
    elif [ -e "${venv}" ]; then
        say environment "${venv} is incomplete: run tools/setup.sh"
        ok=false
    else
        say environment "none yet: run tools/setup.sh"
        ok=false
    fi
    if [ -z "${used}" ]; then
        if answer="$(find_python 2>&1)"; then
            say python "${answer} ($(try_python "${answer}")), to make the environment with"
        else
            say python "${answer}"
        fi
    elif answer="$(try_python "${used}")"; then
        say python "${answer}"
        if ! "${used}" - << 'EOF'; then ok=false; fi
import importlib.metadata
import importlib.util
import sys

missing = False
for name in ("espnet", "torch", "transformers", "peft", "espnet_smop"):
    try:
        print(f"{name:<12} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        print(f"{name:<12} missing: run tools/setup.sh")
        missing = True
if importlib.util.find_spec("torch"):
    import torch

    gpus = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    print(f"{'gpu':<12} {', '.join(gpus) or 'none that PyTorch can use (--ngpu 0 trains on the CPU)'}")
sys.exit(missing)
EOF
    else
        say python "${used} ${answer##*$'\n'}"
        ok=false
    fi
    if line="$(command -v sclite || PATH=/usr/lib/sctk/bin command -v sclite)"; then
        say sclite "${line}"
    else
        say sclite "not installed (Debian: sctk); the same tables are written without it"
    fi
    say disk "$(free_gb "${root}") GB free; the environment takes about 7 GB"
    say ffmpeg "not needed"
    "${ok}"
}

if "${check}"; then
    if report; then exit 0; else exit 1; fi
fi

if [ -n "${into}" ]; then
    answer="$(try_python "${into}")" || die "--into ${into} is not suitable: ${answer##*$'\n'}"
    echo "Python ${answer} at ${into}"
    install "${into}"
    echo "done. Activate its environment, or set ESPNET_SMOP_PYTHON=${into}"
    exit 0
fi

# One at a time: a second run waits and then finds the environment complete.
if command -v flock > /dev/null; then
    exec 9< "${root}/tools"
    flock 9
fi
if is_complete && has_wanted_python; then
    "${quiet_if_complete}" || echo "${venv} is complete; nothing to do"
    exit 0
fi
if [ -f "${stamp}" ] && "${venv}/bin/python" -c "" 2> /dev/null && has_wanted_python; then
    echo "setup.py or the extras changed: updating ${venv}"
    rm -f "${stamp}"
else
    python="$(find_python)"
    echo "making ${venv} with ${python} ($(try_python "${python}"))"
    if [ -e "${venv}" ]; then
        echo "removing the existing environment: it is incomplete or of another Python"
        rm -rf "${venv}"
    fi
    free="$(free_gb "${root}/tools")"
    [ "${free}" -ge "${needed_gb}" ] \
        || die "${free} GB are free in ${root}; the installation needs ${needed_gb} GB temporarily"
    "${python}" -m venv "${venv}" || die "${python} -m venv failed, see above"
fi
install "${venv}/bin/python"
# Last: the next run remakes an environment without a stamp.
state > "${stamp}.partial"
mv "${stamp}.partial" "${stamp}"
echo "done: ${venv}. Recipes activate it themselves (path.sh); to do so by hand: . tools/venv/bin/activate"
