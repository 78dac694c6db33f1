import json

import pytest

from espnet_smop.results.costs import DecodingCosts

JOBS = [
    DecodingCosts(
        2, speech_seconds=4.0, decoding_seconds=2.0, peak_memory_mib=900, memory_of="GPU"
    ),
    DecodingCosts(
        3, speech_seconds=6.0, decoding_seconds=1.0, peak_memory_mib=1200, memory_of="GPU"
    ),
]


def test_jobs_are_added_up_and_read_back(tmp_path):
    costs = DecodingCosts.total(JOBS)
    assert costs == DecodingCosts(5, 10.0, 3.0, 1200, "GPU")
    assert costs.rtf == pytest.approx(0.3)
    costs.write(tmp_path)
    assert DecodingCosts.read(tmp_path) == costs
    assert json.loads((tmp_path / "costs.json").read_text())["decoding_seconds"] == 3.0
    assert DecodingCosts.read(tmp_path / "none") is None


@pytest.mark.parametrize("content", ["", "[]", '{"rtf": 1}'])
def test_a_file_of_another_form_is_named(tmp_path, content):
    (tmp_path / "costs.json").write_text(content)
    with pytest.raises(ValueError, match="costs.json was not written by avsr_inference"):
        DecodingCosts.read(tmp_path)
