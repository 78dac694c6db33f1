# shellcheck shell=bash
# Where your copies of the corpora are. Write the paths here or set the variables outside.

# LRS3-TED as distributed: the directory that holds pretrain/, trainval/ and test/.
LRS3="${LRS3:-}"
export LRS3
