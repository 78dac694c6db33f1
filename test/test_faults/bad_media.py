"""Media files with something odd or wrong about them, and what has to become of each.

`KINDS` maps a name to a `Kind`. Makers write a clip of one second (if it has any length) at the
path they are given, whatever its name says; landmarks for its frames are written beside it.
"""

import contextlib
import dataclasses
import os
import pickle
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BOTH, AUDIO, VIDEO = ("audio", "video"), ("audio",), ("video",)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        make: writes it at a path.
        prepared: frames at 25 per second that preparation makes of it, or a pattern of the reason
            for which it is left out.
        transcribed: the modalities from which `transcribe` recognises it, or a pattern of the
            error.
        landmarks: rows of the landmark file beside it; None: no such file.
        name: of the clip, instead of its kind's.
    """

    make: Callable[[Path], None]
    prepared: int | str
    transcribed: tuple[str, ...] | str
    landmarks: int | None = 25
    name: str = ""


# -- writing ---------------------------------------------------------------------------------------


def pictures(count: int, height: int = 160, width: int = 160) -> np.ndarray:
    """Return grey pictures ``(count, height, width)`` that move."""
    small = np.random.default_rng(0).integers(40, 216, (-(-height // 16), -(-width // 16)))
    picture = np.kron(small, np.ones((16, 16)))[:height, :width].astype(np.uint8)
    return np.stack([np.roll(picture, t, axis=1) for t in range(count)])


def tone(seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    """Return a sine of 300 Hz, float32."""
    return (0.3 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)).astype("f4")


def encode(
    path: Path,
    frames=None,
    samples=None,
    *,
    form: str = "mp4",
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: float = 25,
    times=None,
    sound: str = "aac",
    sound_format: str = "fltp",
    sample_rate: int = 16000,
    layout: str = "mono",
    delay: float = 0.0,
    options=None,
    metadata=None,
) -> None:
    """Write pictures (T, H, W) and samples (N,) or (C, N); ``times``: the pictures' in seconds."""
    with av.open(str(path), "w", format=form, options=dict(options or {})) as container:
        container.metadata.update(metadata or {})
        video = audio = None
        if frames is not None:
            exact = Fraction(rate).limit_denominator(1001)
            video = container.add_stream(codec, rate=exact)
            video.height, video.width = frames.shape[1:]
            video.pix_fmt = pixels
            if codec == "libx264":
                video.options = {"preset": "ultrafast", "crf": "18"}
            if times is not None:
                video.codec_context.time_base = Fraction(1, 1000)
        if samples is not None:
            audio = container.add_stream(sound, rate=sample_rate, layout=layout)
        for number, picture in enumerate(frames if video else ()):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        if video:
            container.mux(video.encode())
        if audio and np.size(samples):
            block = np.atleast_2d(samples)
            planar = sound_format.endswith("p")
            block = block if planar or len(block) == 1 else block.T.reshape(1, -1)
            kind = "f4" if sound_format.startswith("flt") else "i2"
            step = sample_rate * (1 if planar or len(block) == 1 else len(np.atleast_2d(samples)))
            for begin in range(0, block.shape[1], step):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(block[:, begin : begin + step].astype(kind)),
                    format=sound_format, layout=layout,
                )  # fmt: skip
                frame.sample_rate = sample_rate
                frame.pts = round(delay * sample_rate) + begin * sample_rate // step
                frame.time_base = Fraction(1, sample_rate)
                container.mux(audio.encode(frame))
        if audio:
            container.mux(audio.encode())


def clip(**changes) -> Callable[[Path], None]:
    """Return a maker of a clip that is whole but for these changes of `encode`'s arguments."""

    def make(path: Path) -> None:
        given = {"frames": pictures(25), "samples": tone(), **changes}
        encode(path, given.pop("frames"), given.pop("samples"), **given)

    return make


def floats(samples) -> Callable[[Path], None]:
    """Return a maker of a clip with uncompressed floating-point sound."""
    return clip(samples=samples, form="mov", sound="pcm_f32le", sound_format="flt")


def content(data: bytes) -> Callable[[Path], None]:
    """Return a maker of a file of these bytes."""
    return lambda path: path.write_bytes(data) and None


def _spoilt(change: Callable[[bytearray], bytes], **changes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        clip(**changes)(path)
        path.write_bytes(bytes(change(bytearray(path.read_bytes()))))

    return make


def _noise_in_the_middle(data: bytearray) -> bytes:
    begin = data.index(b"mdat")
    size = int.from_bytes(data[begin - 4 : begin], "big")
    third = begin + size // 3
    noise = np.random.default_rng(0).integers(0, 256, size // 3, dtype=np.uint8).tobytes()
    data[third : third + len(noise)] = noise
    return data


def _broken_index(data: bytearray) -> bytes:
    begin = data.index(b"stsz")
    data[begin : begin + 200] = b"\xff" * 200
    return data


def _endless(data: bytearray) -> bytes:
    """Let every header announce a length of days."""
    for name, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        at = -1
        while (at := data.find(name, at + 1)) >= 0:
            data[at + offset : at + offset + 4] = struct.pack(">I", 0x7FFFFFFF)
    return data


def _rotated(path: Path) -> None:
    """Write an mp4 whose track is to be turned by a quarter, as telephones do."""
    clip()(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix
    turned = (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    data[at : at + 36] = struct.pack(">9i", *turned)
    path.write_bytes(data)


def _joined(*makers) -> Callable[[Path], None]:
    """Join MPEG transport streams, as recorders that were paused do."""

    def make(path: Path) -> None:
        parts = []
        for maker in makers:
            maker(path)
            parts.append(path.read_bytes())
        path.write_bytes(b"".join(parts))

    return make


def _cover(path: Path) -> None:
    """Write sound with a cover picture, which readers see as a video stream."""
    with av.open(str(path), "w", format="mp4") as container:
        audio = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=25)
        cover.height = cover.width = 160
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(pictures(1)[0], format="gray")))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(tone()[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


def _two_of_each(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as container:
        videos = [container.add_stream("libx264", rate=25) for _ in range(2)]
        audios = [container.add_stream("aac", rate=16000, layout="mono") for _ in range(2)]
        for stream, size in zip(videos, (160, 64), strict=True):
            stream.height = stream.width = size
            stream.pix_fmt = "yuv420p"
        for stream in videos:
            for picture in pictures(25, stream.width, stream.height):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
            container.mux(stream.encode())
        for stream in audios:
            frame = av.AudioFrame.from_ndarray(tone()[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode())


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _directory(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _playlist(path: Path) -> None:
    secret = path.with_name("secret.ts")
    encode(secret, pictures(25), tone(), form="mpegts")
    lines = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
    path.write_text(f"{lines}{secret}\n#EXT-X-ENDLIST\n")


def _concat(path: Path) -> None:
    clip()(path.with_name("other.mov"))
    path.write_text("ffconcat version 1.0\nfile other.mov\n")


# -- landmark files --------------------------------------------------------------------------------


def _landmarks(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        clip()(path)
        write(path)

    return make


def _foreign_points(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros((99, 68, 2), np.float32))


def _no_points(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.full((25, 68, 2), np.nan, np.float32))


def _other_points(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros((25, 21, 2), np.float32))


def _no_rows(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros((0, 68, 2), np.float32))


def _code(path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch '{path.parent}/executed'",)

    path.with_suffix(".pkl").write_bytes(pickle.dumps(Evil()))


_LATIN1 = {"title": "caf\udce9"}
_STEREO = np.stack([tone(rate=44100), -0.5 * tone(rate=44100)])
_TS = {"form": "mpegts"}
_INCOMPLETE = "damaged, or not a media file"
_MINUTES = 10 * 60 * 25

KINDS: dict[str, Kind] = {
    # what shall work
    "whole": Kind(clip(), 25, BOTH),
    "mkv called mp4": Kind(clip(form="matroska"), 25, BOTH),
    "avi called mp4": Kind(clip(form="avi", codec="mpeg4", sound="mp2"), 25, BOTH),
    "transport stream called mp4": Kind(clip(form="mpegts"), 25, BOTH),
    "mpeg4 and mp3": Kind(clip(form="matroska", codec="mpeg4", sound="libmp3lame"), 25, BOTH),
    "lossless": Kind(clip(form="matroska", codec="ffv1", sound="flac", sound_format="s16",
                          samples=(tone() * 32767)), 25, BOTH),
    "8 kHz": Kind(clip(samples=tone(rate=8000), sample_rate=8000), 25, BOTH),
    "44.1 kHz stereo": Kind(clip(samples=_STEREO, sample_rate=44100, layout="stereo"), 25, BOTH),
    "48 kHz 5.1": Kind(clip(samples=np.tile(tone(rate=48000), (6, 1)), sample_rate=48000,
                            layout="5.1"), 25, BOTH),
    "96 kHz": Kind(clip(samples=tone(rate=96000), sample_rate=96000), 25, BOTH),
    "50 fps": Kind(clip(frames=pictures(50), rate=50), 25, BOTH, landmarks=50),
    "29.97 fps": Kind(clip(frames=pictures(30), rate=30000 / 1001), 25, BOTH, landmarks=30),
    "10 fps": Kind(clip(frames=pictures(10), rate=10), 24, BOTH, landmarks=10),
    "header of days": Kind(_spoilt(_endless), 25, BOTH),
    "variable frame rate": Kind(
        clip(frames=pictures(15), form="matroska", rate=15,
             times=[*np.arange(5) * 0.1, *(0.5 + np.arange(10) * 0.05)]), 25, BOTH, landmarks=15),
    "variable frame rate, 25 on average": Kind(
        clip(frames=pictures(25), form="matroska",
             times=[*np.arange(5) * 0.1, *(0.5 + np.arange(20) * 0.025)]), 27, BOTH),
    "pictures missing for half a second": Kind(
        clip(frames=pictures(13), form="matroska", times=[*np.arange(6) / 25, *(18 + np.arange(7))
             / 25]), 25, BOTH, landmarks=13),
    "rotated": Kind(_rotated, 25, BOTH),
    "odd sizes": Kind(clip(frames=pictures(25, 171, 223), pixels="yuv444p"), 25, BOTH),
    "16 pixels": Kind(clip(frames=pictures(25, 16, 16)), 25, BOTH),
    "1920 pixels": Kind(clip(frames=pictures(25, 1080, 1920)), 25, BOTH),
    "10 bits": Kind(clip(pixels="yuv420p10le"), 25, BOTH),
    "size changes": Kind(_joined(clip(**_TS), clip(**_TS, frames=pictures(25, 80, 80))), 50, BOTH,
                         landmarks=50),
    "sample rate changes": Kind(_joined(clip(**_TS), clip(
        **_TS, samples=tone(rate=48000), sample_rate=48000)), 50, BOTH, landmarks=50),
    "two streams of each": Kind(_two_of_each, 25, BOTH),
    "title not in UTF-8": Kind(clip(form="matroska", metadata=_LATIN1), 25, BOTH),
    "1 frame": Kind(clip(frames=pictures(1), samples=tone(0.04)), 1, BOTH, landmarks=1),
    "2 frames": Kind(clip(frames=pictures(2), samples=tone(0.08)), 2, BOTH, landmarks=2),
    "10 minutes": Kind(clip(frames=pictures(50, 48, 48)[np.arange(_MINUTES) % 50],
                            samples=tone(600)), _MINUTES, BOTH, landmarks=_MINUTES),
    "silence": Kind(clip(samples=0 * tone()), 25, BOTH),
    "clipping": Kind(clip(samples=np.sign(tone())), 25, BOTH),
    "beyond full scale": Kind(floats(1e4 * tone()), 25, BOTH),
    "black": Kind(clip(frames=0 * pictures(25)), 25, BOTH),
    "sound half a second late": Kind(clip(delay=0.5), 25, BOTH),
    "blanks and quotes in its name": Kind(clip(), 25, BOTH, name="it's \"my\"  clip"),
    "other letters in its name": Kind(clip(), 25, BOTH, name="Grüße 日本語 é"),
    "shell words in its name": Kind(clip(), 25, BOTH, name="a;$(touch executed)`touch executed`&|"),
    "a protocol in its name": Kind(clip(), 25, BOTH, name="http:clip%03d"),
    # what one modality is left of
    "no audio": Kind(clip(samples=None), "has no audio stream", VIDEO),
    "no video": Kind(clip(frames=None), "has no video stream", AUDIO, landmarks=None),
    "sound called mp4": Kind(clip(frames=None, form="wav", sound="pcm_s16le", sound_format="s16",
                                  samples=tone() * 32767), "has no video stream", AUDIO,
                             landmarks=None),
    "picture called mp4": Kind(clip(frames=pictures(1), samples=None, form="image2pipe",
                                    codec="png", pixels="rgb24"), "has no audio stream", VIDEO,
                               landmarks=1),
    "cover picture": Kind(_cover, "has no video stream", AUDIO, landmarks=None),
    "no samples": Kind(clip(samples=np.zeros(0, "f4"), form="mov", sound="pcm_f32le",
                            sound_format="flt"), "no samples|has no audio", VIDEO),
    "audio 2 s longer than video": Kind(clip(samples=tone(3)), "audio is 2.* longer", AUDIO),
    "video 2 s longer than audio": Kind(clip(frames=pictures(75)), "audio is 2.* shorter", BOTH,
                                        landmarks=75),
    "no face": Kind(_landmarks(_no_points), "no face found", AUDIO, landmarks=None),
    "landmarks of another form": Kind(_landmarks(_other_points), "expected .frames, 68, 2", AUDIO,
                                      landmarks=None),
    "landmarks that are code": Kind(_landmarks(_code), "it names posix.system", AUDIO,
                                    landmarks=None),
    "landmarks of no frame": Kind(_landmarks(_no_rows), "no face found", AUDIO, landmarks=None),
    # what cannot be used
    "landmarks of another clip": Kind(_landmarks(_foreign_points), "but landmarks for 99", AUDIO,
                                      landmarks=None),
    "NaN in the sound": Kind(floats(np.where(np.arange(16000) == 8000, np.nan, tone())),
                             "not finite", "not finite"),
    "infinite sound": Kind(floats(np.where(np.arange(16000) < 9, np.inf, tone())), "not finite",
                           "not finite"),
    "cut off": Kind(_spoilt(lambda b: b[: len(b) // 2]), _INCOMPLETE, _INCOMPLETE),
    "cut off behind its index": Kind(
        _spoilt(lambda b: b[: 2 * len(b) // 3], options={"movflags": "faststart"}),
        "truncated|cannot be decoded", "truncated|cannot be decoded"),
    "cut off mkv": Kind(_spoilt(lambda b: b[: len(b) // 2], form="matroska"), "landmarks for 25",
                        AUDIO),
    "noise in the middle": Kind(_spoilt(_noise_in_the_middle), "cannot be decoded|truncated",
                                "cannot be decoded|truncated"),
    "broken index": Kind(_spoilt(_broken_index), "cannot be decoded|truncated|damaged|no frames",
                         "cannot be decoded|truncated|damaged|no frames"),
    "a gap of a day": Kind(
        clip(frames=pictures(20), form="matroska", times=[*np.arange(10) / 20, *(
            86400 + np.arange(10) / 20)], rate=20), 25, BOTH, landmarks=20),
    "0 bytes": Kind(content(b""), "0 bytes", "found no audio or video"),
    "zeros": Kind(content(bytes(10000)), _INCOMPLETE, _INCOMPLETE),
    "random bytes": Kind(content(np.random.default_rng(0).bytes(10000)), _INCOMPLETE, _INCOMPLETE),
    "web page": Kind(content(b"<html>404 Not Found</html>"), _INCOMPLETE, _INCOMPLETE),
    "playlist": Kind(_playlist, _INCOMPLETE, _INCOMPLETE),
    "list of other files": Kind(_concat, "is a playlist", "is a playlist"),
    "link to itself": Kind(_loop, "no such (file|clip)", "no such file"),
    "link to nothing": Kind(lambda path: path.symlink_to("nowhere"), "no such (file|clip)",
                            "no such file"),
    "directory": Kind(_directory, "no such (file|clip)", "has no .* file;"),
    "named pipe": Kind(_pipe, "no such (file|clip)", "no such file"),
}  # fmt: skip


def write(kind: str, folder: Path) -> Path:
    """Write a file of this kind, with its landmarks; return its path."""
    given = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{given.name or kind}.mp4"
    given.make(path)
    if given.landmarks is not None:
        points = np.random.default_rng(1).uniform(40, 100, (68, 2)).astype(np.float32)
        np.save(path.with_suffix(".npy"), np.tile(points, (given.landmarks, 1, 1)))
    with contextlib.suppress(OSError):
        path.with_suffix(".txt").write_text("Text:  HELLO WORLD\nConf:  3\n")
    return path
