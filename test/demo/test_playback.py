"""What is encoded is decoded again by PyAV, as a browser would."""

import av
import numpy as np
import pytest

from espnet_smop.corpus.media import read_audio, read_pictures
from espnet_smop.demo.playback import webm


@pytest.mark.parametrize(("sound", "pictures"), [(True, True), (True, False), (False, True)])
def test_sound_and_pictures_come_back(tmp_path, content, sound, pictures):
    speech, video = content(1.0)
    path = tmp_path / "a.webm"
    path.write_bytes(webm(speech if sound else None, video if pictures else None))
    with av.open(str(path)) as container:
        assert container.duration / av.time_base == pytest.approx(1.0, abs=0.05)
        codecs = [s.codec_context.name for s in container.streams]
    assert codecs == ["vp8"] * pictures + ["opus"] * sound
    if sound:
        heard, _ = read_audio(path)
        n = min(len(heard), len(speech))
        middle = slice(2000, n - 2000)
        assert abs(len(heard) - len(speech)) < 800
        # In time to a sample's fraction of the tone's period.
        assert np.corrcoef(heard[middle], speech[middle])[0, 1] > 0.97
    if pictures:
        seen = np.stack([p.grey()[::2, ::2] for p in read_pictures(path)])
        assert seen.shape == video.shape
        # Each is nearer to its own picture than to the one before or after.
        errors = [
            np.abs(seen[1:-1].astype(float) - video[1 + k : len(video) - 1 + k]).mean()
            for k in (-1, 0, 1)
        ]
        assert errors[1] < 0.6 * min(errors[0], errors[2])


def test_loud_sound_is_scaled_down(tmp_path, content):
    speech, _ = content(0.5)
    (tmp_path / "a.webm").write_bytes(webm(10 * speech, None))
    heard, _ = read_audio(tmp_path / "a.webm")
    assert 0.8 < np.abs(heard).max() < 1.2
