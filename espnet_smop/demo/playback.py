"""Sound and mouth crops as a WebM file, which browsers play without a plug-in or a licence."""

import io
from fractions import Fraction

import av
import cv2
import numpy as np

from espnet_smop.modality import FRAME_RATE, SAMPLE_RATE

_SIZE = 192
_OPUS_RATE = 48000
_OPUS_SAMPLES = 960  # 20 ms


def webm(speech: np.ndarray | None, video: np.ndarray | None) -> bytes:
    """Encode one or both as VP8 and Opus.

    Args:
        speech: ``(samples,)`` float at 16 kHz; scaled down if it exceeds full scale.
        video: grey, uint8 ``(T, H, W)`` at 25 fps.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        streams = []
        if video is not None:
            streams.append(_video_packets(container, video))
        if speech is not None:
            streams.append(_audio_packets(container, speech))
        # All streams exist before the first packet, which writes the header.
        packets = [packet for stream in streams for packet in stream()]
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return file.getvalue()


def _video_packets(container: av.container.OutputContainer, video: np.ndarray):
    stream = container.add_stream(
        "libvpx", rate=FRAME_RATE, options={"deadline": "realtime", "cpu-used": "8"}
    )
    stream.width = stream.height = _SIZE
    stream.pix_fmt = "yuv420p"
    stream.bit_rate = 300_000

    def packets():
        for index, picture in enumerate(video):
            larger = cv2.resize(picture, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
            frame = av.VideoFrame.from_ndarray(larger, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, FRAME_RATE)
            yield from stream.encode(frame)
        yield from stream.encode()

    return packets


def _audio_packets(container: av.container.OutputContainer, speech: np.ndarray):
    stream = container.add_stream("libopus", rate=_OPUS_RATE, layout="mono")
    stream.bit_rate = 48_000
    resampler = av.AudioResampler(
        format="flt", layout="mono", rate=_OPUS_RATE, frame_size=_OPUS_SAMPLES
    )

    def packets():
        samples = speech / max(np.abs(speech).max(initial=1.0), 1.0)
        frame = av.AudioFrame.from_ndarray(
            samples.astype(np.float32)[None], format="flt", layout="mono"
        )
        frame.sample_rate = SAMPLE_RATE
        frame.pts = 0
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            yield from stream.encode(part)
        yield from stream.encode()

    return packets
