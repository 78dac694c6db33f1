"""Ids that a shell would take for commands go through the driver as they are."""

import pytest

IDS = [
    "a;$(touch executed)".replace(" ", "_"),
    "b`touch${IFS}executed`",
    "c$(touch${IFS}executed)",
    "d'\"&|>executed<",
    "e*?[x]{1,2}~!#%",
    "-f--help",
    "Grüße_日本語",
]

DATA = """#!/usr/bin/env bash
set -euo pipefail
for name in train valid test; do
    mkdir -p "data/$name"
    cp ids_text "data/$name/text"
    cp ids_utt2spk "data/$name/utt2spk"
done
"""


@pytest.mark.slow
def test_ids_are_never_run(recipe):
    recipe.write("local/data.sh", DATA)
    ids = sorted(IDS)
    (recipe.dir / "ids_text").write_text("".join(f"{i} HELLO WORLD\n" for i in ids))
    (recipe.dir / "ids_utt2spk").write_text(
        "".join(f"{i} s;$(touch${{IFS}}executed)\n" for i in ids)
    )
    done = recipe.run("--stop_stage", "13", "--score_opts", "")
    assert done.returncode == 0, done.stderr[-2000:]
    (decode,) = (recipe.dir / "exp/avsr_train").glob("decode*/test")
    assert [line.split(" ")[0] for line in (decode / "text").read_text().splitlines()] == ids
    for metric in ("wer", "cer"):
        table = (decode / f"score_{metric}" / "result.txt").read_text()
        (average,) = [x for x in table.splitlines() if "Sum/Avg" in x]
        assert f"{len(ids)} " in average
        assert average.split()[-3] == "0.0"
    assert not list(recipe.dir.rglob("executed*"))
