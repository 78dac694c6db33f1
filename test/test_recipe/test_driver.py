"""avsr_smop.sh: its options, and what its stages call."""

import re

import pytest

DATA = ("fix", "format", "combine", "filter", "babble", "shapes")
EXP = "exp/avsr_train/decode_avsr_model_valid.acc.ave"


def values(arguments, name):
    return [arguments[k + 1] for k, x in enumerate(arguments) if x == name]


def test_all_stages_from_corpus_to_results(recipe):
    done = recipe.run(
        "--snrs", "clean -5", "--skip_packing", "false", "--skip_upload", "false",
        "--hf_repo", "me/a_model", "--upload_dry_run", "true",
        "--pack_opts", "--name 'A model' --license mit",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    names = [name for name, _ in recipe.calls()]
    data = [f"data_dir {name}" for name in DATA]
    order = [
        "check_config",
        *data,
        "launch",
        "avsr_inference",
        "package pack",
        "package upload",
        "results report",
    ]
    assert [n for k, n in enumerate(names) if n not in names[:k]] == order
    for stage in (1, *range(3, 8), *range(10, 17)):
        assert f"Stage {stage}: " in done.stdout
    assert re.search(r"stage 11: \d+ s", done.stdout)
    (packing,), (upload,) = recipe.calls("package pack"), recipe.calls("package upload")
    assert values(packing, "--exp") == ["exp/avsr_train"]
    assert values(packing, "--avsr_model_file") == ["valid.acc.ave.pth"]
    assert values(packing, "--name") == ["A model"] and values(packing, "--license") == ["mit"]
    assert values(upload, "--packed") == values(packing, "--out") == ["exp/avsr_train/packed.zip"]
    assert values(upload, "--repo") == ["me/a_model"] and values(upload, "--dry_run") == ["true"]

    # Only train and valid are filtered; the test set must lose nothing.
    formatted = {values(a, "--out_dir")[0]: a for a in recipe.calls("data_dir format")}
    assert formatted.keys() == {"dump/raw/org/train", "dump/raw/org/valid", "dump/raw/test"}
    assert ["--strict_test" in a for a in formatted.values()] == [False, False, True]
    assert len(recipe.calls("data_dir format")) == 6
    assert len(recipe.calls("data_dir filter")) == 2

    (launch,) = recipe.calls("launch")
    assert values(launch, "--train_data_path_and_name_and_type") == [
        "dump/raw/train/wav.scp,speech,sound",
        "dump/raw/train/video.scp,video,video",
        "dump/raw/train/text,text,text",
    ]
    assert values(launch, "--valid_shape_file") == ["exp/avsr_stats/valid/duration_shape"]

    (analysis,) = recipe.calls("results report")
    assert analysis[0] == "exp/avsr_train"
    assert values(analysis, "--data_dir") == ["dump/raw/test"]
    assert values(analysis, "--model") == ["valid.acc.ave.pth"]
    text = (recipe.dir / EXP / "test" / "text").read_text().splitlines()
    assert [line.split()[0] for line in text] == [f"test-s1-{k}" for k in range(1, 6)]
    # Both levels in one call of each job
    decodings = recipe.calls("avsr_inference")
    assert len(decodings) == 2
    assert values(decodings[0], "--noise") == ["dump/noise/babble.wav"]
    assert decodings[0][decodings[0].index("--snr") + 1 :][:3] == ["clean", "-5", "--key_file"]
    for dset, level in (("test", "clean"), ("test_babble_snr-5", "snr-5")):
        logdir = recipe.dir / EXP / dset / "logdir"
        assert sorted(p.name for p in logdir.iterdir()) == [
            "avsr_inference.1.log", "avsr_inference.2.log", "keys.1.scp", "keys.2.scp",
            "output.1", "output.2",
        ]  # fmt: skip
        assert (logdir / "output.2/level").read_text() == level
    results = (recipe.dir / "exp/avsr_train/RESULTS.md").read_text()
    for dset in ("test", "test_babble_snr-5"):
        row = f"|decode_avsr_model_valid.acc.ave/{dset}|5|10|100.0|0.0|0.0|0.0|0.0|0.0|"
        assert row in results
    assert "espnet version: `espnet 20" in results


def test_a_stage_runs_alone_and_again(recipe):
    assert recipe.run("--stop_stage", "11").returncode == 0
    before = len(recipe.calls())
    for _ in range(2):
        done = recipe.run("--stage", "12", "--stop_stage", "12")
        assert done.returncode == 0, done.stderr
        assert "Stage 11" not in done.stdout
    made = recipe.calls()[before:]
    assert [name for name, _ in made] == 2 * ["check_config", "avsr_inference", "avsr_inference"]
    assert made[0][1][-2:] == ["--exp_dir", "exp/avsr_train"]
    assert values(made[0][1], "--data_dirs") == ["dump/raw/test"]


def test_skipping(recipe):
    assert recipe.run("--stop_stage", "7").returncode == 0
    before = len(recipe.calls())
    done = recipe.run("--skip_data_prep", "true", "--skip_eval", "true", "--skip_stages", "16")
    assert done.returncode == 0, done.stderr
    assert {name for name, _ in recipe.calls()[before:]} == {
        "check_config", "data_dir shapes", "launch",
    }  # fmt: skip
    done = recipe.run("--skip_data_prep", "true", "--skip_train", "true")
    assert re.findall(r"Stage (\d+):", done.stdout) == ["12", "13", "16"]


def test_only_video_is_read_without_audio_frontend(recipe):
    recipe.write("conf/train.yaml", "audio_frontend: null\nvideo_frontend: avhubert\n")
    done = recipe.run("--snrs", "clean 0 5", "--stop_stage", "13")
    assert done.returncode == 0, done.stderr
    (launch,) = recipe.calls("launch")
    assert "wav.scp" not in str(launch)
    # Lips do not hear noise: one decoding serves all ratios.
    assert len(recipe.calls("avsr_inference")) == 2
    assert "wav.scp" not in str(recipe.calls("avsr_inference"))


def test_a_corpus_without_video(recipe):
    recipe.write("env/only audio", "")
    done = recipe.run()
    assert done.returncode == 1
    assert "dump/raw/train has no video, which the model needs: choose another --avsr_config" in (
        done.stderr
    )
    recipe.write("conf/train.yaml", "audio_frontend: whisper\nvideo_frontend: null\n")
    done = recipe.run("--stage", "11", "--stop_stage", "13")
    assert done.returncode == 0, done.stderr


def test_a_recipe_that_pretrains_its_llm_brings_a_tokenizer(recipe):
    assert recipe.run("--stop_stage", "5").returncode == 0
    done = recipe.run("--stage", "5", "--stop_stage", "5", "--train_tokenizer", "true")
    assert done.returncode != 0 and "no local/tokenizer.sh" in done.stderr
    recipe.write("local/tokenizer.sh", '#!/usr/bin/env bash\necho "$@" > tokenizer_call\n')
    done = recipe.run("--stage", "5", "--stop_stage", "5", "--train_tokenizer", "true",
                      "--nbpe", "90")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (recipe.dir / "tokenizer_call").read_text().split() == [
        "--text", "dump/raw/train/text", "--vocab_size", "90",
        "--out", "data/token_list/bpe_unigram90",
    ]  # fmt: skip


def test_arguments_with_quotes_and_their_tag(recipe):
    assert recipe.run("--stop_stage", "10").returncode == 0
    args = "--max_epoch 3 --projector_conf '{routing: jejr, top_k: 1}'"
    done = recipe.run("--stage", "11", "--stop_stage", "11", "--avsr_args", args)
    assert done.returncode == 0, done.stderr
    (launch,) = recipe.calls("launch")
    assert launch[-4:] == ["--max_epoch", "3", "--projector_conf", "{routing: jejr, top_k: 1}"]
    exps = [p.name for p in (recipe.dir / "exp").iterdir()]
    assert "avsr_train_max_epoch_3_projector_conf_routing_jejr_top_k_1" in exps


def test_training_reads_cached_features(recipe):
    assert recipe.run("--stop_stage", "10").returncode == 0
    (recipe.dir / "env/cache_report").write_text("audio noise is on\nvideo cached as video\n")
    done = recipe.run("--stage", "11", "--stop_stage", "11", "--feats_cache", "feature cache",
                      "--avsr_args", "--projector_conf top_k=1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "audio features are not cached, training computes them: noise is on" in done.stdout
    (made,) = recipe.calls("cache_feats")
    at = made.index("--modality")
    assert made[at + 1 : at + 3] == ["audio", "video"]
    assert values(made, "--projector_conf") == ["top_k=1"]
    assert values(made, "--out") == ["feature cache"]
    (launch,) = recipe.calls("launch")
    assert values(launch, "--valid_data_path_and_name_and_type") == [
        "dump/raw/valid/wav.scp,speech,sound",
        "feature cache/valid_video/feats.scp,video_feats,kaldi_ark",
        "dump/raw/valid/text,text,text",
    ]

    (recipe.dir / "env/fail cache_feats").touch()
    done = recipe.run("--stage", "11", "--stop_stage", "11", "--feats_cache", "feature cache")
    assert done.returncode == 1
    assert "cache_feats failed as it was told to" in done.stderr
    assert len(recipe.calls("launch")) == 1


def test_a_lost_hypothesis_is_an_error_that_names_it(recipe):
    assert recipe.run("--stop_stage", "11").returncode == 0
    (recipe.dir / "env/lose").write_text("test-s1-3")
    done = recipe.run("--stage", "12")
    assert done.returncode == 1
    assert "lacks 1 of 5 ids: test-s1-3" in done.stderr
    assert "resume with --stage 12" in done.stderr
    assert "Stage 13" not in done.stdout


def test_a_failed_decoding_of_several_levels_leaves_the_earlier_ones(recipe):
    assert recipe.run("--stop_stage", "11").returncode == 0
    decode = ("--stage", "12", "--stop_stage", "13", "--snrs")
    assert recipe.run(*decode, "clean 0").returncode == 0
    dirs = [recipe.dir / EXP / name for name in ("test", "test_babble_snr0")]
    (recipe.dir / "env/fail avsr_inference").touch()
    assert recipe.run(*decode, "clean 0").returncode == 1
    (recipe.dir / "env/fail avsr_inference").unlink()
    for path, snr in zip(dirs, ("clean", "0"), strict=True):
        assert (path / "text").exists() and (path / "score_wer/result.txt").exists()
        done = recipe.run("--stage", "13", "--stop_stage", "13", "--snrs", snr)
        assert f"{EXP}/{path.name}/logdir.new: run stage 12 again" in done.stderr
    # A level given twice is decoded once.
    done = recipe.run(*decode, "0 clean 0")
    assert done.returncode == 0, done.stderr
    assert "test 0 clean: 5 utterances by 2 jobs" in done.stdout
    for path in dirs:
        assert len(list(path.glob("logdir/output.*"))) == 2
        assert not (path / "logdir.new").exists()


def test_a_failing_job_says_which_log(recipe):
    (recipe.dir / "env/fail data_dir format").touch()
    done = recipe.run()
    assert done.returncode == 1
    assert "log dump/raw/org/train/logs/format.1.log" in done.stderr
    assert "data_dir format failed as it was told to" in done.stderr
    assert not (recipe.dir / "dump/raw/org/train/text").exists()


def test_a_training_is_checked_before_anything_is_written(recipe):
    (recipe.dir / "env/fail check_config").touch()
    done = recipe.run("--avsr_args", "--max_epoch 3", "--inference_args", "--beam_size 2")
    assert done.returncode == 1
    assert done.stderr == "check_config failed as it was told to\n"
    ((name, check),) = recipe.calls()
    assert name == "check_config"
    assert values(check, "--stages") == [" 1 3 4 5 6 7 10 11 12 13 16 "]
    assert values(check, "--config") == ["conf/train.yaml"]
    assert values(check, "--output_dir") == ["exp/avsr_train_max_epoch_3"]
    assert values(check, "--inference_config") == ["conf/decode.yaml"]
    assert values(check, "--dump_dir") == ["dump"]
    assert "--inference_args=--beam_size 2" in check and check[-2:] == ["--max_epoch", "3"]
    assert not [name for name in ("data", "dump", "exp") if (recipe.dir / name).exists()]

    # A second training in a directory: its log is rotated by espnet2.bin.launch.
    (recipe.dir / "env/fail check_config").unlink()
    assert recipe.run("--stop_stage", "11").returncode == 0
    (recipe.dir / "exp/avsr_train/train.log").write_text("the first")
    (recipe.dir / "env/fail check_config").touch()
    (recipe.dir / "env/real_launch").touch()
    assert recipe.run("--stage", "11").returncode == 1
    assert (recipe.dir / "exp/avsr_train/train.log").read_text() == "the first"
    assert not (recipe.dir / "exp/avsr_train/train.1.log").exists()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("3", "data/train/text is missing or empty: run stage 1 first"),
        ("4", "dump/raw/org/train/text is missing or empty: run stage 3 first"),
        ("11", "dump/raw/train/text is missing or empty: run stage 4 first"),
        ("12", "exp/avsr_train/config.yaml is missing or empty: run stage 11 first"),
    ],
)
def test_a_missing_earlier_stage_is_named(recipe, stage, message):
    done = recipe.run("--stage", stage)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unknown", "1"], "there is no option --unknown"),
        (["--PATH", "x"], "there is no option --PATH"),
        (["--command_line", "x"], "there is no option --command_line"),
        (["--stage"], "option --stage needs a value"),
        (["--stage", "two"], "--stage must be a number, not 'two'"),
        (["--stage=2"], "write '--stage VALUE'"),
        (["--skip_train", "yes"], "--skip_train must be true or false, not 'yes'"),
        (["--snrs", "clean loud"], "'loud' is neither clean nor a number"),
        (["--modality", "both"], "asr, vsr or avsr"),
        (["--views", "asr:4 avsr:4"], "'avsr:4' is not of the form asr:4, vsr:2 or avsr:4,2"),
        (["--views", "vsr:2,5"], "'vsr:2,5' is not of the form"),
        (["--nj", "0"], "--nj must be 1 or more"),
        (["--valid_set", ""], "--valid_set is required"),
        (["stray"], "unexpected argument 'stray'"),
        (["-j", "3"], "options begin with --"),
    ],
)
def test_wrong_options_are_explained(recipe, arguments, message):
    done = recipe.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "--help" in done.stderr
    assert recipe.calls() == []


@pytest.mark.slow  # imports torch
def test_a_trained_model_is_decoded_from_its_directory(recipe):
    assert recipe.run("--stop_stage", "11").returncode == 0
    (recipe.dir / "exp/avsr_train").rename(recipe.dir / "a model")
    done = recipe.run("--skip_data_prep", "true", "--download_model", "a model")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(recipe.calls("launch")) == 1
    assert (recipe.dir / "exp/a_model/RESULTS.md").exists()


def test_help_explains_every_option(recipe):
    script = (recipe.dir / "avsr_smop.sh").read_text()
    defaults = script[script.index("# General\n") : script.index('help_message="')]
    options = re.findall(r"^([a-z_]+)=", defaults, flags=re.MULTILINE)
    assert len(options) > 50
    done = recipe.run("--help")
    assert done.returncode == 0
    for option in options:
        assert re.search(rf"^ +--{option} .+[.:)]?", done.stdout, flags=re.MULTILINE), option
    explained = re.findall(r"^ +--([a-z_]+)", done.stdout, flags=re.MULTILINE)
    assert sorted(explained) == sorted(options)
    assert not (recipe.dir / "env/calls").exists()


def test_help_shows_the_defaults_that_apply(recipe):
    shown = recipe.run("--nj", "5", "--avsr_config", "conf/mine.yaml", "--help").stdout
    assert "Parallel jobs of data preparation (default 5)" in shown
    assert "may name another as its base (default conf/mine.yaml)" in shown


def test_environment_is_made_on_first_use_and_a_bad_one_is_named(recipe):
    (recipe.dir / "env/bin/python").unlink()
    done = recipe.run()
    assert done.returncode == 1
    assert "env/bin/python, named by --python or ESPNET_SMOP_PYTHON, cannot be run" in done.stderr
    assert "tools/setup.sh --into" in done.stderr
