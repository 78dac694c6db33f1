# shellcheck shell=bash
# Path of your corpus: a folder of NAME.mp4 or NAME.wav with NAME.txt beside it. Set it here or in the
# environment.
CORPUS="${CORPUS:-}"
export CORPUS
