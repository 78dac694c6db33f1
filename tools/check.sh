#!/usr/bin/env bash
# Sets up the environment and checks the project: lint, tests, and the mini recipe in smoke size.
# Tests run shellcheck on shell scripts, if it is installed.
# Usage: tools/check.sh [pytest arguments], e.g. tools/check.sh -m "not slow", or with -n 0 to run in
# one process (default: one per core, up to eight).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

started=${SECONDS}
step() { echo "== $(date +%H:%M:%S) $*"; }

step "environment"
tools/setup.sh
# shellcheck source=/dev/null
. tools/venv/bin/activate

step "lint"
ruff format --check .
ruff check .
step "tests"
if [ "$#" -eq 0 ]; then
    set -- -m "not long"
fi
# Test files are distributed over processes, each with its own core.
export OMP_NUM_THREADS=1
python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile "$@"
step "done in $((SECONDS - started)) s"
