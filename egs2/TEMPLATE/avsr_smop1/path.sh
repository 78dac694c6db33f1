# shellcheck shell=bash
# Chooses the Python of all stages and sets their environment. Sourced by run.sh and the driver.
#
# The first available one is used:
#   1. ESPNET_SMOP_PYTHON, your own Python (see `tools/setup.sh --into`)
#   2. an activated environment (virtualenv, conda) that tools/setup.sh --into has filled
#   3. tools/venv; tools/setup.sh is called to make it if it does not exist

SMOP_ROOT="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../.." && pwd)"
export SMOP_ROOT

# Prints "fits", or why a Python does not. Imports nothing, since each import takes a second.
smop_fits() {
    local answer
    answer="$("$1" -c 'if True:
        import importlib.util as u
        needed = ("espnet2", "torch", "transformers", "peft")
        lacking = [name for name in needed if u.find_spec(name) is None]
        print("lacks " + ", ".join(lacking) if lacking else "fits")' 2>/dev/null)" || answer="cannot be run"
    echo "${answer:-is not Python}"
}

if [ -n "${ESPNET_SMOP_PYTHON:-}" ]; then
    SMOP_PYTHON="$(command -v "${ESPNET_SMOP_PYTHON}" || true)"
    case "${SMOP_PYTHON}" in
        /* | "") ;;
        *) SMOP_PYTHON="${PWD}/${SMOP_PYTHON}" ;;
    esac
    smop_answer="$(smop_fits "${SMOP_PYTHON:-/}")"
    if [ "${smop_answer}" != fits ]; then
        echo "path.sh: ${ESPNET_SMOP_PYTHON}, named by --python or ESPNET_SMOP_PYTHON, ${smop_answer};" \
            "install what is needed with '${SMOP_ROOT}/tools/setup.sh --into ${ESPNET_SMOP_PYTHON}'" >&2
        exit 1
    fi
elif [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ "$(smop_fits python)" = fits ]; then
    SMOP_PYTHON="$(command -v python)"
else
    "${SMOP_ROOT}/tools/setup.sh" --quiet_if_complete true || exit 1
    # shellcheck source=/dev/null
    . "${SMOP_ROOT}/tools/venv/bin/activate"
    SMOP_PYTHON="${SMOP_ROOT}/tools/venv/bin/python"
fi
export SMOP_PYTHON
unset -f smop_fits
unset smop_answer

# Scripts that call python3 get this Python, too.
case ":${PATH}:" in
    *":${SMOP_PYTHON%/*}:"*) ;;
    *) PATH="${SMOP_PYTHON%/*}:${PATH}" ;;
esac
# Debian's package sctk keeps sclite off PATH.
if ! command -v sclite > /dev/null && [ -x /usr/lib/sctk/bin/sclite ]; then
    PATH="${PATH}:/usr/lib/sctk/bin"
fi
export PATH
# egs2/synthesis: speech and faces for the recipes that make their corpus
for smop_directory in "${SMOP_ROOT}/egs2/synthesis" "${SMOP_ROOT}"; do
    case ":${PYTHONPATH:-}:" in
        *":${smop_directory}:"*) ;;
        *) export PYTHONPATH="${smop_directory}${PYTHONPATH:+:${PYTHONPATH}}" ;;
    esac
done
unset smop_directory

# Files are sorted by bytes, read and written as UTF-8.
export LC_ALL=C PYTHONIOENCODING=UTF-8 PYTHONUTF8=1
# nproc would print OMP_NUM_THREADS if it is set.
SMOP_CORES="$(env -u OMP_NUM_THREADS nproc)"
export SMOP_CORES
# Parallel jobs share the cores; the driver gives training more.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export TOKENIZERS_PARALLELISM="${TOKENIZERS_PARALLELISM:-false}"
# Progress bars are for terminals, not for logs.
[ -t 2 ] || export HF_HUB_DISABLE_PROGRESS_BARS=1
