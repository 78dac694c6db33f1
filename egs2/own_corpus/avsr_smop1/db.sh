# shellcheck shell=bash
# Where your corpus is: a folder of NAME.mp4 or NAME.wav with NAME.txt beside it. Write the path here
# or set the variable outside.
CORPUS="${CORPUS:-}"
export CORPUS
