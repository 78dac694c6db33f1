# shellcheck shell=bash
# Paths of your copies of the corpora. Set them here or in the environment.

# LRS3-TED as distributed: the directory that holds pretrain/, trainval/ and test/.
LRS3="${LRS3:-}"
export LRS3

# LRS2 as distributed: the directory that holds mvlrs_v1/ and its lists.
LRS2="${LRS2:-}"
export LRS2
