import numpy as np
import pytest
import soundfile
from espnet2.train import dataset, iterable_dataset

from espnet_smop.fileio import sound


def test_another_rate_is_refused_and_the_right_one_read(tmp_path):
    sound.register()
    sound.register()
    samples = np.random.default_rng(0).normal(size=300) * 0.1
    for name, rate in (("a", 16000), ("b", 44100)):
        soundfile.write(tmp_path / f"{name}.wav", samples, rate)
    scp = tmp_path / "wav.scp"
    scp.write_text("".join(f"{name} {tmp_path}/{name}.wav\n" for name in "ab"))
    data = dataset.ESPnetDataset([(str(scp), "speech", "sound")], float_dtype="float32")
    read = data["a"][1]["speech"]
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, samples, atol=1e-4)
    for read in (lambda: data["b"], lambda: iterable_dataset.DATA_TYPES["sound"](
        str(tmp_path / "b.wav")
    )):  # fmt: skip
        with pytest.raises(sound.SoundFileError, match=r"b.wav is at 44100 Hz, expected 16000: re"):
            read()
