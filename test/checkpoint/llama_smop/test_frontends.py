import torch

from espnet_smop.checkpoint.llama_smop.frontends import (
    PublicWhisperFrontend,
    UnmaskedWhisperFrontend,
)


def test_number_of_frames(tiny_whisper):
    samples = torch.tensor([1, 319, 320, 639, 640, 16000, 480000])
    frontend = PublicWhisperFrontend(tiny_whisper, dtype="float32")
    assert frontend.num_frames(samples).tolist() == [25] * 5 + [50, 1500]
    # Of the 738 whole video frame counts from 25 audio frames to 30 s, float32 loses 30.
    video_frames = torch.arange(13, 751)
    assert (frontend.num_frames(video_frames * 640) != video_frames * 2).sum() == 30
    batch = torch.randn(2, 16000)
    batch[0, 3000:] = 0
    features, lengths = frontend(batch, torch.tensor([3000, 16000]))
    assert lengths.tolist() == [25, 50] and features[0, :25].abs().sum(-1).min() > 0


def test_unmasked_padding_is_encoded_as_speech(tiny_whisper):
    frontend = UnmaskedWhisperFrontend(tiny_whisper, dtype="float32")
    batch, lengths = torch.randn(2, 16000), torch.tensor([3000, 16000])
    features, found = frontend(batch, lengths)
    whole, _ = PublicWhisperFrontend(tiny_whisper, dtype="float32")(
        batch, torch.tensor([16000] * 2)
    )
    assert found.tolist() == [50, 50]
    assert torch.equal(features, whole)
    assert torch.equal(frontend.layers(batch, lengths)[0][-1], whole)
