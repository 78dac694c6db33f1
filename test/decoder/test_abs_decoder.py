import pytest

from espnet_smop.decoder.abs_decoder import AbsAVDecoder


class Positional(AbsAVDecoder):
    def generate(self, tokens, token_lengths, beam_size=1, *, nbest=1):
        return []


class Bare(AbsAVDecoder):
    def generate(self, tokens, token_lengths):
        return []


def test_settings_of_generate_may_be_positional_parameters():
    Positional.check_generation({"beam_size": 3, "nbest": 2})
    with pytest.raises(ValueError, match="no setting 'beam_siez'. Did you mean 'beam_size'"):
        Positional.check_generation({"beam_siez": 3})
    with pytest.raises(ValueError, match="no setting 'tokens'. Positional.generate takes beam_"):
        Positional.check_generation({"tokens": 3})
    with pytest.raises(ValueError, match="no setting 'beam_size'. Bare.generate takes none"):
        Bare.check_generation({"beam_size": 3})
