from pathlib import Path

import pytest
import torch

from espnet_smop.base_model import BaseModelError
from espnet_smop.bin.convert_base_model import main
from espnet_smop.frontend.avhubert import AVHuBERTFrontend

GOLDEN = Path(__file__).parents[1] / "golden" / "avhubert_tiny_fairseq.pt"


def test_converts_and_loads(tmp_path, capsys):
    out = tmp_path / "my models" / "avhubert"
    main(["avhubert", "--checkpoint", str(GOLDEN), "--out", str(out)])
    assert "2 layers of width 64" in capsys.readouterr().out
    assert AVHuBERTFrontend(str(out)).output_size() == 64


def test_failure_writes_nothing_and_says_why(tmp_path):
    torch.save({"model": {}, "cfg": None}, tmp_path / "other.pt")
    out = tmp_path / "out"
    with pytest.raises(BaseModelError, match="no AV-HuBERT"):
        main(["avhubert", "--checkpoint", str(tmp_path / "other.pt"), "--out", str(out)])
    assert not out.exists()
    with pytest.raises(SystemExit):
        main(["avhubert", "--out", str(out)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("avhubert", "--checkpoint", str(GOLDEN), "--out", "{tmp}"), "exists already: remove it"),
        (("whisper_ct2", "--model", "{tmp}", "--out", "{tmp}"), "exists already: remove it or"),
        (("whisper_ct2", "--model", "{tmp}", "--out", "{tmp}/new"), "cannot be read as a CTransl"),
        (("whisper_ct2", "--package", "no_such", "--out", "{tmp}/new"), "is not installed: pip"),
        (("gguf", "--model", "{tmp}", "--out", "{tmp}/new"), "is not a .gguf file"),
    ],
)
def test_mistakes_are_named(tmp_path, words, message):
    with pytest.raises(BaseModelError, match=message):
        main([word.format(tmp=tmp_path) for word in words])
    assert not list(tmp_path.iterdir())
