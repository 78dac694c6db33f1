from pathlib import Path

from espnet_smop.scoring.decodes import parse


def test_names_of_decode_directories():
    noisy = parse(Path("exp/avsr_x/decode/test_clean_set_babble_snr-2.5"))
    assert noisy[1:] == ("test_clean_set", "babble", "-2.5")
    assert parse(Path("exp/avsr_x/decode/test"))[1:] == ("test", "", "clean")
