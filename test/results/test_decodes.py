from espnet_smop.results.decodes import Condition, parse_condition


def test_names_of_decode_directories():
    noisy = parse_condition("test_clean_set_babble_snr-2.5")
    assert noisy == ("test_clean_set", "babble", "-2.5")
    assert str(noisy) == "test_clean_set, babble -2.5 dB"
    assert parse_condition("test") == ("test", "", "clean")


def test_clean_comes_first_and_little_noise_before_much():
    levels = [("b", "5"), ("", "clean"), ("b", "-5"), ("a", "0"), ("b", "10")]
    ordered = sorted((Condition("test", *level) for level in levels), key=lambda c: c.order)
    assert [c[1:] for c in ordered] == [
        ("", "clean"), ("a", "0"), ("b", "10"), ("b", "5"), ("b", "-5")]  # fmt: skip
