"""local/data.sh of the LRS3 recipe: how it calls the preparation."""

import shutil
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "egs2/lrs3/avsr_smop1/local/data.sh"


def test_options_arrive_as_they_were_given(recipe):
    shutil.copy(DATA, recipe.dir / "local/lrs3_data.sh")
    done = recipe.run(
        "--lrs3", "/the corpora/lrs3", "--extra_train", "/the corpora/vox2:/b", "--train_parts",
        "trainval", script="local/lrs3_data.sh",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (call,) = recipe.calls("prepare_corpus any_lrs3")
    assert call[call.index("--root") + 1] == "/the corpora/lrs3"
    at = call.index("--extra_train")
    assert call[at + 1 :] == ["/the corpora/vox2", "/b"]
    assert call[call.index("--train_parts") + 1 : call.index("--train_set")] == ["trainval"]
    assert "--pretrain_set" not in call

    done = recipe.run("--lrs3", "/lrs3", script="local/lrs3_data.sh")
    assert done.returncode == 0, done.stderr
    assert "--extra_train" not in recipe.calls("prepare_corpus any_lrs3")[1]

    done = recipe.run(script="local/lrs3_data.sh")
    assert done.returncode == 1
    assert "write it as LRS3= in db.sh" in done.stderr
