"""All settings of the mini corpus's difficulty, for lips and for sound."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How far the clips are from ideal ones; larger is harder unless noted otherwise.

    Lengths of the face are in pixels of the 256 × 256 reference canvas, in which a mouth is
    about 44 wide, or in pixels of the video frame where noted.
    """

    # Lips: what is said
    merge: tuple[tuple[str, str], ...] = ()
    """Viseme classes rendered as another one, e.g. ``(("TH", "T"), ("CH", "R"))``."""
    coarticulation: float = 0.03
    """Reach of a phone's lip shape beyond its own time, seconds (times the speaker's factor)."""
    coarticulation_spread: float = 0.25
    """Standard deviation of the speaker's factor, in log."""
    amplitude: float = 1.3
    """Mean size of lip movements; smaller is harder."""
    amplitude_spread: float = 0.08
    """Standard deviation of a speaker's amplitude, in log."""
    phone_amplitude_spread: float = 0.08
    """Standard deviation of a phone's amplitude, in log: vowels open the mouth differently."""
    shape_jitter: float = 0.03
    """Slow random drift of every lip parameter (opening and rounding run from 0 to 1)."""

    # Lips: when
    look_ahead: float = 0.03
    """Lips move up to this many seconds before the sound; uniform over speakers."""
    clip_offset: float = 0.008
    """Standard deviation of the lips' delay against the sound, per clip, seconds."""
    phone_timing: float = 0.006
    """Standard deviation of that delay per phone, seconds."""

    # Picture
    blur: tuple[float, float] = (0.4, 0.8)
    """Range of the Gaussian blur of a speaker's camera, frame pixels."""
    noise: tuple[float, float] = (1.5, 4.0)
    """Range of the camera noise, grey levels of 255."""
    translation: float = 3.0
    """Standard deviation of the head's slow translation, frame pixels."""
    rotation: float = 2.5
    """Standard deviation of the head's slow roll, degrees."""
    zoom: float = 0.02
    """Standard deviation of the head's slow change of size."""
    brightness: float = 0.04
    """Standard deviation of a clip's exposure, in log."""
    crf: int = 24
    """Constant rate factor of the H.264 encoder."""

    # Sound
    speech_rate: tuple[int, int] = (150, 180)
    """Range of a speaker's rate, words per minute."""
    room_time: tuple[float, float] = (0.08, 0.25)
    """Range of the reverberation time, seconds."""
    room_level: float = 0.03
    """Reverberant sound's energy relative to the direct sound's."""
    tilt: float = 0.1
    """Largest coefficient of the microphone's first-order spectral tilt."""
    snr: tuple[float, float] = (25.0, 40.0)
    """Range of the signal-to-noise ratio of a clip's own background noise, dB."""


QUIET_ROOMS = Difficulty()
"""Of the clips that base models are pretrained on."""

ORDINARY_ROOMS = Difficulty(room_level=0.06, snr=(14.0, 30.0))
"""Of the clips for training and tests: more echo and background noise than the base models have
heard, so that sound alone is not enough even without babble."""
