"""The recipe of real speech with its real base models, from packages to error rates, in minutes.

A few steps on a few sentences: its error rates mean nothing.
"""

import math
import shlex
import sys

import pytest
import torch

from espnet_smop.corpus.datadir import write_data_dir
from espnet_smop.fileio.table import read_table

KEPT = {"train": 24, "valid": 6, "test_human": 4, "test_synthetic": 6}
TRAINING = (
    "--max_epoch 2 --num_iters_per_epoch 4 --batch_bins 400 --keep_nbest_models 1 "
    "--model_conf ctc_warmup_steps=4 --scheduler_conf first_cycle_steps=4 "
    "--scheduler_conf warmup_steps=1 --scheduler_conf cycle_mult=1.0"
)
TAG = "smop4_seed0"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def recipe(clone_recipe, get_base_models, asterisk):
    """Return the recipe after stages 1 to 6, with sets of a few utterances."""
    pytest.importorskip("espeakng_loader")
    clone = clone_recipe("real_speech")
    get_base_models(clone)
    few = {"synthetic": 40, "joined": 10, "quotations": 0, "lists": 0, "voices": "espeak"}
    options = [*asterisk, *(str(x) for k, v in few.items() for x in (f"--{k}", v))]
    run(clone, "--stop_stage", 4, "--local_data_opts", shlex.join(options))
    for name, count in KEPT.items():
        directory = clone.dir / "dump/raw" / name
        tables = {path.name: read_table(path) for path in directory.iterdir() if path.is_file()}
        kept = sorted(tables["text"])[-count:]  # of the training set, those of synthetic voices
        write_data_dir(
            directory,
            {name: {k: t[k] for k in kept} for name, t in tables.items() if kept[0] in t},
        )
    return clone


def run(clone, *options):
    return clone.run("./run.sh", "--systems", "smop4", "--ngpu", 0, *options)


def test_from_features_to_error_rates(recipe):
    decoding = "--beam_size 1 --max_new_tokens 4"
    out = run(recipe, "--stage", 5, "--avsr_args", TRAINING, "--inference_args", decoding)
    exp = recipe.dir / "exp" / f"avsr_{TAG}"
    epochs = torch.load(exp / "checkpoint.pth", weights_only=True)["reporter"]["stats"]
    warm, trained = (epochs[epoch]["train"] for epoch in (1, 2))
    assert math.isfinite(float(warm["loss"]))
    # An LLM that knows English, and no text that it could have heard: a random one has 10.8.
    assert 3 < float(trained["loss_ce"]) < 9
    assert "cached" in (exp / "feats_cache.txt").read_text()
    for name in ("test_human", "test_synthetic"):
        [text] = exp.glob(f"decode*/{name}/text")
        assert read_table(text).keys() == read_table(recipe.dir / "dump/raw" / name / "text").keys()
        assert "Avg" in (text.parent / "score_wer/result.txt").read_text()
        assert name in out
    assert (exp / "RESULTS.md").is_file()


def test_experts_by_phone_class(recipe):
    recipe.run("local/phones.py", "dump/raw/test_synthetic")
    report = ["-m", "espnet_smop.bin.results", "report", f"exp/avsr_{TAG}"]
    recipe.run(sys.executable, *report, "--data_dir", "dump/raw/test_synthetic")
    figures = recipe.dir / f"exp/avsr_{TAG}/analysis/figures"
    header, first, _ = (figures / "phones.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert row["choices"] == "first" and int(row["tokens"]) > 100
    # Vowels are most of speech, and more classes than four equally frequent ones tell.
    assert 1.5 < float(row["entropy_of_class"]) < 3
    assert 0 <= float(row["mutual_information"]) < float(row["entropy_of_class"])
