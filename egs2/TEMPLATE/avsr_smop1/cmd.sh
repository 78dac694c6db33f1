# shellcheck shell=bash
# Where parallel jobs run. Back ends follow Kaldi's calling convention:
#
#     CMD [--gpu N] [--mem M] [--num_threads N] [--max_jobs_run N] [JOB=1:n] LOG COMMAND…
#
# Choose with `cmd_backend=slurm ./run.sh`, or write your choice here.
#   local  processes on this machine
#   slurm  a Slurm cluster; set its partitions in conf/slurm.conf
#   kaldi  Kaldi's run.pl, or the script named by KALDI_CMD (queue.pl, slurm.pl, ssh.pl …), on PATH
cmd_backend="${cmd_backend:-local}"

case "${cmd_backend}" in
    local) smop_cmd="scripts/jobs/local.py" ;;
    slurm) smop_cmd="scripts/jobs/slurm.pl" ;; # ESPnet's launcher detects Slurm by this name
    kaldi) smop_cmd="${KALDI_CMD:-run.pl}" ;;
    *)
        echo "cmd.sh: cmd_backend must be local, slurm or kaldi, not '${cmd_backend}'" >&2
        exit 1
        ;;
esac

export train_cmd="${smop_cmd}"  # data preparation
export cuda_cmd="${smop_cmd}"   # GPU jobs: training and, with --gpu_inference, decoding
export decode_cmd="${smop_cmd}" # decoding without GPU
