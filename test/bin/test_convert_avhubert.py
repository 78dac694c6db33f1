from pathlib import Path

import pytest
import torch

from espnet_smop.bin.convert_avhubert import main
from espnet_smop.frontend.avhubert import AVHuBERTFrontend

GOLDEN = Path(__file__).parents[1] / "golden" / "avhubert_tiny_fairseq.pt"


def test_converts_and_loads(tmp_path, capsys):
    out = tmp_path / "my models" / "avhubert"
    assert main(["--checkpoint", str(GOLDEN), "--out", str(out)]) == 0
    assert "2 layers of width 64" in capsys.readouterr().out
    assert AVHuBERTFrontend(str(out)).output_size() == 64


def test_failure_writes_nothing_and_says_why(tmp_path, capsys):
    torch.save({"model": {}, "cfg": None}, tmp_path / "other.pt")
    out = tmp_path / "out"
    assert main(["--checkpoint", str(tmp_path / "other.pt"), "--out", str(out)]) == 1
    assert "no AV-HuBERT" in capsys.readouterr().err and not out.exists()
    with pytest.raises(SystemExit):
        main(["--out", str(out)])
