# shellcheck shell=bash
# Sourced with `ngpu`, a number or "auto": one GPU if this machine has one. Sets `ngpu` to the
# number, and `gpu_args` to the driver's options: decoding runs where training does.

if [ "${ngpu:?}" = auto ]; then
    ngpu=0
    if command -v nvidia-smi > /dev/null && nvidia-smi -L > /dev/null 2>&1; then ngpu=1; fi
fi
gpu_args=(--ngpu "${ngpu}")
if [ "${ngpu}" != 0 ]; then
    gpu_args+=(--gpu_inference true --inference_nj 1)
fi
