import pytest

from espnet_smop.analysis.decode_logs import read_decode_cost


def test_jobs_are_summed(tmp_path):
    logs = tmp_path / "logdir"
    logs.mkdir()
    (logs / "avsr_inference.1.log").write_text(
        "x INFO: RTF: 0.5000 (2.0 s for 4.0 s)\nx INFO: peak memory: 900 MiB of the GPU\n"
    )
    (logs / "avsr_inference.2.log").write_text(
        "x INFO: RTF: 0.1667 (1.0 s for 6.0 s)\nx INFO: peak memory: 1200 MiB of the GPU\n"
    )
    cost = read_decode_cost(tmp_path)
    assert cost.rtf == pytest.approx(0.3)
    assert cost[1:] == (1200, "GPU")
    assert read_decode_cost(tmp_path / "none") == (None, None, "")
