"""What several of these tests need: a tiny model's arguments, for as long as a module lasts."""

import argparse

import pytest


@pytest.fixture(scope="session")
def module_model_args(make_llm, tiny_whisper, tiny_avhubert):
    """Return a function that makes the arguments of a tiny model; keywords override them."""

    def make(**changes):
        args = {
            "audio_frontend": "whisper",
            "audio_frontend_conf": {"model": tiny_whisper},
            "video_frontend": "avhubert",
            "video_frontend_conf": {"model": tiny_avhubert},
            "model_conf": {},
            "projector": "smop",
            "projector_conf": {"routing": "dedr", "num_experts": 3, "hidden_size": 16},
            "decoder": "llm",
            "decoder_conf": {"model": make_llm("smollm"), "lora": {"r": 2, "alpha": 2}},
            "preprocessor": "avsr",
            "preprocessor_conf": {},
            "use_preprocessor": True,
            "base_fingerprints": {},
        }
        return argparse.Namespace(**{**args, **changes})

    return make
