import av
import numpy as np
import pytest
import soundfile

from espnet_smop.corpus import media


def test_audio_and_pictures_come_back(tmp_path, make):
    video, audio = make.content(2, frames=30)
    clip = make.mp4(tmp_path / "a clip.mp4", video, audio)
    samples, start = media.read_audio(clip)
    assert samples.dtype == np.float32 and abs(len(samples) - len(audio)) <= 1024
    assert abs(start) < 0.07
    # The tone is where it was: AAC's priming samples are not counted.
    both = min(len(samples), len(audio))
    assert np.corrcoef(samples[640 : both - 640], audio[640 : both - 640])[0, 1] > 0.99
    pictures = list(media.read_pictures(clip))
    assert [p.index for p in pictures] == list(range(30))
    for picture, written in zip(pictures, video, strict=True):
        assert np.abs(picture.grey().astype(int) - written).mean() < 3
    rgb = pictures[3].rgb()
    assert rgb.shape == (160, 160, 3) and np.abs(rgb.astype(int).mean(2) - video[3]).mean() < 3


def test_audio_is_resampled(tmp_path, make):
    time = np.arange(44100) / 44100
    tone = 0.3 * np.sin(2 * np.pi * 440 * time).astype(np.float32)
    clip = make.mp4(tmp_path / "a.mp4", None, tone, sample_rate=44100)
    samples, _ = media.read_audio(clip)
    assert abs(len(samples) - 16000) <= 400
    spectrum = np.abs(np.fft.rfft(samples[:16000]))
    assert abs(int(spectrum.argmax()) - 440) <= 1


@pytest.mark.parametrize(("rate", "frames"), [(50, 60), (30, 60), (20, 40), (10, 20)])
def test_other_rates_become_25(tmp_path, rate, frames, make):
    grey = np.repeat((np.arange(frames) * 4).astype(np.uint8), 64 * 64).reshape(frames, 64, 64)
    clip = make.mp4(tmp_path / "a.mp4", grey, rate=rate)
    pictures = list(media.read_pictures(clip))
    assert abs(len(pictures) - frames / rate * 25) <= 1
    ticks = np.arange(len(pictures)) / 25
    shown = np.array([p.index for p in pictures]) / rate
    assert np.abs(shown - ticks).max() <= 0.5 / min(rate, 25) + 1e-6


def half(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_what_can_be_wrong(tmp_path, make):
    video, audio = make.content(0)
    whole = make.mp4(tmp_path / "whole.mp4", video, audio)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes())
    half(cut)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    silent = make.mp4(tmp_path / "silent.mp4", video)
    blind = make.mp4(tmp_path / "blind.mp4", None, audio)
    for error, read, path in [
        (media.UnreadableMediaError, media.read_audio, tmp_path / "none.mp4"),
        (media.UnreadableMediaError, media.read_audio, cut),
        (media.EmptyMediaError, media.read_audio, empty),
        (media.NoAudioStreamError, media.read_audio, silent),
        (media.NoVideoStreamError, lambda p: list(media.read_pictures(p)), blind),
        (media.UnreadableMediaError, lambda p: list(media.read_pictures(p)), cut),
    ]:
        with pytest.raises(error) as raised:
            read(path)
        message = str(raised.value)
        assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message


def test_a_wav_file_shorter_than_announced_is_truncated(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(48000), 16000)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3200])  # 0.1 s, which may be rounding
    assert len(media.read_audio(path)[0]) == 46400
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(media.TruncatedMediaError, match=r"audio ends after 1\.\d+ of 3 s"):
        media.read_audio(path)
    # Programs that write into a pipe announce the largest size.
    for unknown in (b"\xff\xff\xff\xff", b"\x24\xf0\xff\x7f"):
        path.write_bytes(whole[:4] + unknown + whole[8:])
        assert len(media.read_audio(path)[0]) == 48000


def test_truncation_is_noticed_where_the_header_comes_first(tmp_path, make):
    import av

    whole = make.mp4(tmp_path / "whole.mp4", *make.content(0, frames=100))
    fast = tmp_path / "fast.mp4"
    with (
        av.open(str(whole)) as source,
        av.open(str(fast), "w", options={"movflags": "faststart"}) as target,
    ):
        streams = {s: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                target.mux(packet)
    assert len(list(media.read_pictures(fast))) == 100
    half(fast)
    with pytest.raises(media.TruncatedMediaError, match=r"truncated|cannot be decoded"):
        list(media.read_pictures(fast))
    with pytest.raises(media.TruncatedMediaError, match=r"truncated|cannot be decoded"):
        media.read_audio(fast)


def test_channels_that_cannot_be_mixed_are_said(tmp_path):
    clip = tmp_path / "array.wav"
    soundfile.write(clip, np.zeros((16000, 20)), 16000)
    with pytest.raises(media.UnreadableMediaError, match="20 channels of sound at 16000 Hz cannot"):
        media.read_audio(clip)


def test_a_header_of_a_picture_a_day_is_not_believed(tmp_path):
    clip = tmp_path / "a.avi"
    with av.open(clip, "w") as container:
        stream = container.add_stream("mpeg4", rate=25, width=48, height=48)
        for level in range(6):
            grey = np.full((48, 48), 40 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        container.mux(stream.encode())
    data = bytearray(clip.read_bytes())
    scale = data.index(b"vids") + 20  # dwScale of the stream's header: seconds = scale / rate
    data[scale : scale + 4] = (2**21 + 1).to_bytes(4, "little")
    clip.write_bytes(data)
    assert 0 < sum(1 for _ in media.read_pictures(clip)) <= 6 * 250


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("colorspace", [1, 2, 5])  # BT.709, none given, BT.470
def test_grey_is_what_ffmpeg_makes_of_the_picture(tmp_path, pix_fmt, color_range, colorspace):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 162, 94, pix_fmt
        stream.codec_context.color_range = color_range
        stream.codec_context.colorspace = colorspace
        noise = np.random.default_rng(0).integers(0, 256, (3, 94, 162, 3), dtype=np.uint8)
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        expected = [
            frame.reformat(format="gray").to_ndarray() for frame in container.decode(video=0)
        ]
    np.testing.assert_array_equal([p.grey() for p in media.read_pictures(path)], expected)
