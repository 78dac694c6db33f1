"""Speech from eSpeak NG, with the times of its words and phones."""

import _ctypes
import ctypes
from dataclasses import dataclass

import av
import espeakng_loader
import numpy as np

SAMPLE_RATE = 16000

# espeak-ng/speak_lib.h
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _IPA = 1, 2
_UTF8 = 1
_EVENT_END, _EVENT_WORD, _EVENT_PHONEME = 0, 1, 7
_RATE, _PITCH, _RANGE = 1, 3, 4

_VOICELESS_STOPS = ("p", "t", "k")
_STRESS = "',%=ˈˌ"
_CLOSURE = 0.045  # seconds of silence before a voiceless stop's event, which marks its burst


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """An eSpeak NG voice.

    Attributes:
        name: Language and variant, such as ``en-us+f2``.
        rate: Words per minute.
        pitch: 0–100; 50 is the variant's own.
        range: 0–100, how much the pitch moves.
    """

    name: str
    rate: int
    pitch: int
    range: int


@dataclass(frozen=True)
class Segment:
    """A word or phone from ``start`` to ``end``, in seconds."""

    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Speech with its alignment.

    Attributes:
        samples: float32 ``(samples,)`` at 16 kHz within ±1.
        words: The words of the text, in order.
        phones: eSpeak's phonemes without stress marks, in order.
    """

    samples: np.ndarray
    words: list[Segment]
    phones: list[Segment]


def synthesise(text: str, voice: Voice) -> Utterance:
    """Speak ``text`` (lower-case words).

    Raises:
        ValueError: eSpeak NG runs words together, such as "of the", and gives no times for each.
    """
    samples, events, rate = _speak(text, voice)
    phones, owners = _phones(events, rate)
    words = text.split()
    found = sum(kind == _EVENT_WORD for kind, _, _ in events)
    if found != len(words):
        raise ValueError(f"eSpeak NG reads {text!r} as {found} words")
    segments = []
    for i, word in enumerate(words):
        own = [phone for phone, owner in zip(phones, owners, strict=True) if owner == i]
        segments.append(Segment(word, own[0].start, own[-1].end))
    return Utterance(_resample(samples, rate), segments, phones)


def speak(text: str, voice: Voice) -> np.ndarray:
    """Return float32 ``(samples,)`` at 16 kHz of any text, without times."""
    samples, _, rate = _speak(text, voice)
    return _resample(samples, rate)


def speak_phones(text: str, voice: Voice) -> tuple[np.ndarray, list[Segment]]:
    """Return the samples of `speak` and their phones, in IPA without stress marks."""
    samples, events, rate = _speak(text, voice, _PHONEME_EVENTS | _IPA)
    return _resample(samples, rate), _phones(events, rate)[0]


def _speak(
    text: str, voice: Voice, options: int = _PHONEME_EVENTS
) -> tuple[np.ndarray, list[tuple[int, int, str]], int]:
    """Return samples, events and eSpeak's sampling rate.

    The library is loaded afresh each time: its pitch flutter and wave phase live in static
    variables that no call resets, so an utterance would depend on earlier ones.
    It takes 1.5 ms.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        return _speak_with(library, text, voice, options)
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def _speak_with(
    library: ctypes.CDLL, text: str, voice: Voice, options: int
) -> tuple[np.ndarray, list[tuple[int, int, str]], int]:
    chunks: list[np.ndarray] = []
    events: list[tuple[int, int, str]] = []

    @_Callback
    def collect(samples, count, event):  # eSpeak's own signature
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        position = 0
        while event[position].type != _EVENT_END:
            one = event[position]
            if one.type in (_EVENT_WORD, _EVENT_PHONEME):
                label = one.id.string.decode() if one.type == _EVENT_PHONEME else ""
                events.append((one.type, one.sample, label))
            position += 1
        return 0

    data = str(espeakng_loader.get_data_path()).encode()
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, options)
    if rate <= 0:
        raise RuntimeError(
            f"eSpeak NG finds no voices in {data.decode()}: reinstall espeakng-loader"
        )
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    library.espeak_SetSynthCallback(collect)
    if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
        raise ValueError(f"eSpeak NG has no voice {voice.name!r}")
    for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
        library.espeak_SetParameter(parameter, value, 0)
    encoded = text.encode() + b"\0"
    library.espeak_Synth(encoded, len(encoded), 0, 0, 0, _UTF8, None, None)
    return np.concatenate(chunks), events, rate


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return float32 samples at 16 kHz of int16 ``samples`` at ``rate``."""
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    frames = resampler.resample(frame) + resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def _phones(events: list[tuple[int, int, str]], rate: int) -> tuple[list[Segment], list[int]]:
    """Return the phones of eSpeak's ``(type, sample, label)`` events, and the word of each."""
    starts: list[float] = []  # of phones; the pauses at the end of the sentence close the last one
    labels: list[str] = []
    owners: list[int] = []
    word = -1
    for kind, sample, label in events:
        if kind == _EVENT_WORD:
            word += 1
            continue
        label = label.lstrip(_STRESS)
        start = sample / rate
        if label.startswith(_VOICELESS_STOPS) and starts:
            start = max(start - _CLOSURE, (starts[-1] + start) / 2)
        elif label.startswith(_VOICELESS_STOPS):
            start = max(start - _CLOSURE, 0.0)
        starts.append(start)
        labels.append(label)
        owners.append(word)
    spoken = [i for i, label in enumerate(labels) if label and not label.startswith("_")]
    ends = [*starts[1:], starts[-1]]
    phones = [Segment(labels[i], starts[i], ends[i]) for i in spoken]
    return phones, [owners[i] for i in spoken]
