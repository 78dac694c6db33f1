import pytest

from espnet_smop.corpus.text import normalise


@pytest.mark.parametrize(
    ("written", "scored"),
    [
        ("  IT'S   A\tTEST ", "it's a test"),
        ("{UNCERTAIN} WORDS STAY", "uncertain words stay"),
        ("{NS} NOISE GOES {LG}", "noise goes"),
        ("A <UNK> MARKING GOES", "a marking goes"),
        ("IN 1984 42% OF US", "in 1984 42% of us"),
        ("{NS}", ""),
    ],
)
def test_normalise(written, scored):
    assert normalise(written) == scored
    assert normalise(scored) == scored
