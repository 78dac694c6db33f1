"""Recognition of waveforms, mouth crops and whole media files with a trained model."""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from espnet_smop.checkpoint.package import open_package, resolved_config, weights_file
from espnet_smop.class_path import unknown_key
from espnet_smop.config import load_config, modalities_of
from espnet_smop.corpus.clips import LANDMARK_SLACK, fit, shift
from espnet_smop.corpus.landmarks import (
    DlibLandmarks,
    LandmarkError,
    LandmarkProvider,
    find_beside,
    find_landmarks,
    read_landmarks,
)
from espnet_smop.corpus.media import (
    SAMPLES_PER_FRAME,
    EmptyMediaError,
    NoAudioStreamError,
    NoVideoStreamError,
    Video,
    duration,
    read_audio,
)
from espnet_smop.corpus.mouth import NoFaceError, crop, crop_transforms
from espnet_smop.corpus.pauses import cut_at_pauses
from espnet_smop.decoder.abs_decoder import GENERATION_DEFAULTS, Hypothesis
from espnet_smop.modality import FRAME_RATE, MODALITIES, SAMPLE_RATE
from espnet_smop.model import Encoded
from espnet_smop.packed_linear import pack_linears
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.tasks.registered import decoder_choices
from espnet_smop.tasks.settings import check_none, conf_problems, text_numbers
from espnet_smop.train.abs_preprocessor import AbsAVPreprocessor
from espnet_smop.train.noise import NoiseAdder
from espnet_smop.views import TASKS, View, choose_task, parse_rates, tasks_of

Result = list[tuple[str, list[str], list[int], float]]
"""n-best list of (text, tokens, token ids, score)."""

_MAX_SAMPLE = 8.0
"""Resampling may exceed 1 a little; unscaled integers exceed it by far."""
_CROPS = ((96, 96), (88, 88))
"""Sizes of mouth crops; the larger is cut to the smaller."""

DEFAULTS = GENERATION_DEFAULTS
"""Beam search settings where neither the arguments nor the experiment's config give any."""

DECODING_OPTIONS = (
    *DEFAULTS, "contrast", "task", "rates", "batch_size", "ngpu", "seed", "num_workers",
    "log_level", "noise", "snr", "noise_seed", "allow_variable_data_keys", "key_file",
)  # fmt: skip
"""Options of ``avsr_inference`` that a decoding config may set."""


def decoding_problems(settings: Mapping[str, Any], source: str) -> Iterator[str]:
    """Yield problems with the names and types of the settings of a decoding config.

    Args:
        settings: of the config.
        source: its name, for the messages.
    """
    for name, value in settings.items():
        if name not in DECODING_OPTIONS:
            yield unknown_key(source, name, DECODING_OPTIONS)
        else:
            yield from text_numbers(f"{source}: {name}", value)


class AVSRSpeech2Text:
    """Recognises utterances, one or many at a time.

    Example::

        speech2text = AVSRSpeech2Text("exp/avsr/config.yaml", "exp/avsr/valid.acc.ave.pth")
        [(text, tokens, ids, score), *_] = speech2text(speech=waveform, video=mouth_crops)
        speech2text = AVSRSpeech2Text.from_pretrained("packed.zip", beam_size=5)

    Args:
        avsr_train_config: ``config.yaml`` of the experiment.
        avsr_model_file: its checkpoint.
        device: ``cpu`` or ``cuda``.
        noise: arguments of :class:`~espnet_smop.train.noise.NoiseAdder`; None for clean speech.
        task: ``asr``, ``vsr`` or ``avsr``, if the model has several; None is the one with the most
            modalities.
        rates: modality → encoder frames per token, or a string such as ``audio=16,video=5``, if
            the model has several rates; the default is the first of each.
        generation: arguments of the decoder's ``generate`` (``beam_size``, ``nbest``, …). They
            override the experiment's ``inference_conf``, which overrides ``DEFAULTS``.

    Attributes:
        view: task and rates.
        media_tokens: audio and video tokens that the LLM has read so far.
    """

    def __init__(
        self,
        avsr_train_config: str | Path,
        avsr_model_file: str | Path | None = None,
        *,
        device: str = "cpu",
        noise: dict[str, Any] | None = None,
        task: str | None = None,
        rates: Mapping[str, int] | str | None = None,
        **generation: Any,
    ):
        _check_options(Path(avsr_train_config), avsr_model_file, device, noise, generation, task)
        self.model, self.train_args = AVSRTask.load_model(
            str(avsr_train_config), avsr_model_file and str(avsr_model_file), device
        )
        pack_linears(self.model)
        rates = parse_rates(rates) if isinstance(rates, str) else rates
        self.view = self.model.views.find(task, rates)
        self.media_tokens = 0
        self.preprocess = self.preprocessor(noise)
        self.collate = AVSRTask.build_collate_fn(self.train_args, train=False)
        self.device = device
        self.generation = {**DEFAULTS, **self.train_args.inference_conf, **generation}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        whisper: str | None = None,
        avhubert: str | None = None,
        llm: str | None = None,
        **options: Any,
    ) -> "AVSRSpeech2Text":
        """Load a packed model, or an experiment that was not packed.

        A zip file is extracted into the system's temporary directory (``TMPDIR``) while the model
        is loaded, including any base models inside.

        Args:
            model: package (directory, zip file or hub id) or directory of an experiment.
            whisper: directory or hub id that replaces the Whisper model named in the config. It
                must hold the same weights.
            avhubert: likewise for AV-HuBERT.
            llm: likewise for the LLM.
            options: of the class: ``device``, ``noise``, ``beam_size``, …

        Raises:
            PackageError: not a package, or an unsafe zip file.
            BaseModelError: the package or a base model cannot be found, or a base model has other
                weights than in training.
        """
        with open_package(model) as directory, tempfile.TemporaryDirectory() as temporary:
            bases = {"whisper": whisper, "avhubert": avhubert, "llm": llm}
            origin = Path(model).parent if Path(model).is_file() else None
            settings = resolved_config(directory, bases, origin=origin)
            config = Path(temporary) / "config.yaml"
            config.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
            return cls(config, weights_file(directory), **options)

    def __call__(
        self,
        speech: np.ndarray | torch.Tensor | None = None,
        video: np.ndarray | torch.Tensor | None = None,
        *,
        uid: str = "",
        allow_missing: bool = False,
    ) -> Result:
        """Recognise one utterance.

        Args:
            speech: waveform ``(samples,)`` at 16 kHz, floating-point numbers from -1 to 1; an array
                or tensor.
            video: grey mouth crops, uint8 ``(T, 96, 96)`` at 25 fps; an array or tensor.
            uid: utterance id, which selects the noise segment if noise is added.
            allow_missing: accept one input where the model takes two.

        Raises:
            ValueError: an input is missing, not taken by the model, or not as described; the
                message says what was given and what to do.
        """
        data = _checked_inputs(
            speech,
            video,
            self.view.modalities,
            sizes=_CROPS if self.train_args.preprocessor == "avsr" else None,
            allow_missing=allow_missing,
        )
        _, batch = self.collate([(uid, self.preprocess(uid, data))])
        [nbest] = self.hypotheses(batch, allow_missing=allow_missing)
        return [self.result(hypothesis) for hypothesis in nbest]

    def preprocessor(self, noise: dict[str, Any] | None) -> AbsAVPreprocessor | None:
        """Return the preprocessor for evaluation; ``noise`` is as in the class."""
        args = argparse.Namespace(**vars(self.train_args))
        AVSRTask.set_noise(args, noise)
        return AVSRTask.build_preprocess_fn(args, train=False)

    def hypotheses(
        self, batch: dict[str, torch.Tensor], *, allow_missing: bool = False
    ) -> list[list[Hypothesis]]:
        """Return the n-best lists of a batch of preprocessed and collated utterances."""
        view = self.view
        if allow_missing:
            given = [m.name for m in MODALITIES.values() if m.data_name in batch]
            view = self.model.views.for_modalities(view, given)
        encoded = self.encode(batch, modalities=view.modalities, allow_missing=allow_missing)
        return self.search(encoded, view)

    @torch.no_grad()
    def encode(
        self,
        batch: dict[str, torch.Tensor],
        *,
        modalities: Collection[str] | None = None,
        allow_missing: bool = False,
    ) -> Encoded:
        """Return the encoders' features of a batch, by default of the view's modalities."""
        batch = {name: value.to(self.device) for name, value in batch.items()}
        inputs = (batch.get(n) for n in ("speech", "speech_lengths", "video", "video_lengths"))
        modalities = self.view.modalities if modalities is None else modalities
        return self.model.encode(*inputs, allow_missing=allow_missing, modalities=modalities)

    @torch.no_grad()
    def search(self, encoded: Encoded, view: View | None = None) -> list[list[Hypothesis]]:
        """Return the n-best lists for the output of :meth:`encode`, by default for the view."""
        view = view or self.view
        projected = self.model.project_encoded(encoded, view)
        self.media_tokens += sum(int(n.sum()) for n in projected.lengths.values())
        with self.model.decoder.active(view):
            return self.model.decoder.generate(
                projected.tokens, projected.lengths, **self.generation
            )

    @contextlib.contextmanager
    def repeated(self) -> Iterator[None]:
        """Merge the LLM's adapters for the view once for all searches in the context."""
        decoder = self.model.decoder
        with decoder.active(self.view), decoder.repeated():
            yield

    def result(self, hypothesis: Hypothesis) -> tuple[str, list[str], list[int], float]:
        """Return a hypothesis as text, tokens, token ids and score."""
        tokens = self.model.decoder.tokenizer.convert_ids_to_tokens(hypothesis.ids)
        # Tokens that an imported model added to the vocabulary have no name in the tokenizer.
        ids = zip(tokens, hypothesis.ids, strict=True)
        tokens = [f"<{i}>" if token is None else token for token, i in ids]
        return hypothesis.text, tokens, hypothesis.ids, hypothesis.score


def modalities_to_decode(config: Path, task: str | None = None) -> tuple[str, ...]:
    """Return the inputs of an experiment's task; None is the one with the most modalities.

    Raises:
        ValueError: it does not have the task.
    """
    tasks = (load_config(config).get("model_conf") or {}).get("tasks")
    return TASKS[choose_task(tasks_of(tasks, modalities_of(config)), task)]


def _check_options(
    config: Path,
    model_file: str | Path | None,
    device: str,
    noise: Mapping[str, Any] | None,
    generation: Mapping[str, Any],
    task: str | None,
) -> None:
    """Raise ValueError for options that would otherwise fail only after the model is loaded."""
    settings = load_config(config)
    if model_file is not None and not Path(model_file).is_file():
        raise ValueError(f"there is no checkpoint {model_file}")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"device is {device!r}, expected cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device is {device!r}, but no GPU is visible: check nvidia-smi, or use cpu"
        )
    decoder_class = decoder_choices.get_class(settings.get("decoder", decoder_choices.default))
    modalities = modalities_to_decode(config, task)
    generation = {**DEFAULTS, **(settings.get("inference_conf") or {}), **generation}
    decoder_class.check_generation(generation)
    if generation.get("contrast") and len(modalities) < 2:
        raise ValueError(
            f"contrast is {generation['contrast']}, but the model takes a single modality: "
            "leave it out"
        )
    if noise is not None:
        check_none(conf_problems("noise", NoiseAdder, noise))
        if settings.get("audio_frontend", "default") is None:
            raise ValueError("noise is given, but the model has no audio_frontend: leave it out")
        if noise["snr"] is not None and not Path(noise["file"]).is_file():
            raise ValueError(f"noise file {noise['file']} does not exist")


def _checked_inputs(
    speech: Any,
    video: Any,
    modalities: tuple[str, ...],
    *,
    sizes: Collection[tuple[int, int]] | None,
    allow_missing: bool,
) -> dict[str, np.ndarray]:
    """Return the inputs as arrays by data name; raise ValueError if the model cannot use them."""
    data = {}
    for modality, value, check in (
        ("audio", speech, _checked_speech),
        ("video", video, functools.partial(_checked_video, sizes=sizes)),
    ):
        name = MODALITIES[modality].data_name
        if value is None and modality in modalities and not allow_missing:
            others = "" if len(modalities) == 1 else ", or allow_missing=True to do without"
            raise ValueError(f"{name} is missing, but the model takes it: give {name}=…{others}")
        if value is not None and modality not in modalities:
            raise ValueError(
                f"{name} is given, but the model has no {modality}_frontend, or its task takes no "
                f"{modality}: leave it out"
            )
        if value is not None:
            data[name] = check(value)
    if not data:
        raise ValueError("neither speech nor video is given")
    if len(data) == 2:
        seconds = len(data["speech"]) / SAMPLE_RATE, len(data["video"]) / FRAME_RATE
        if max(seconds) > min(seconds) + 1 and max(seconds) > 1.5 * min(seconds):
            raise ValueError(
                f"speech has {seconds[0]:.1f} s at {SAMPLE_RATE} Hz, video {seconds[1]:.1f} s at "
                f"{FRAME_RATE} frames a second: resample the one at another rate"
            )
    return data


def _checked_speech(speech: Any) -> np.ndarray:
    speech = _as_array("speech", speech)
    if speech.ndim != 1:
        raise ValueError(
            f"speech has the shape {speech.shape}, expected one channel (samples,): select one, or "
            "average them"
        )
    if not np.issubdtype(speech.dtype, np.floating):
        hint = ": divide by 32768" if speech.dtype == np.int16 else ""
        raise ValueError(
            f"speech is {speech.dtype}, expected floating-point samples from -1 to 1{hint}"
        )
    if not len(speech):
        raise ValueError("speech has no samples")
    if not np.isfinite(speech).all():
        raise ValueError("speech has samples that are NaN or infinite")
    largest = float(np.abs(speech).max())
    if largest > _MAX_SAMPLE:
        raise ValueError(
            f"speech has samples up to {largest:g}, expected -1 to 1: divide 16-bit samples by "
            "32768"
        )
    return speech


def _checked_video(video: Any, *, sizes: Collection[tuple[int, int]] | None) -> np.ndarray:
    video = _as_array("video", video)
    if video.ndim == 4:
        raise ValueError(
            f"video has the shape {video.shape}, expected grey (T, 96, 96): convert colour to "
            "grey, or squeeze the dimension of 1"
        )
    if video.ndim != 3 or (sizes is not None and video.shape[1:] not in sizes):
        raise ValueError(
            f"video has the shape {video.shape}, expected mouth crops (T, 96, 96): crop the mouth "
            "as stage 3 does, or transcribe the file with Transcriber"
        )
    if video.dtype != np.uint8:
        raise ValueError(f"video is {video.dtype}, expected uint8 from 0 to 255")
    if not len(video):
        raise ValueError("video has no frames")
    return video


def _as_array(name: str, value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is a {type(value).__name__}, expected an array or a tensor")
    return value


# Audio and video streams of one file may differ this much in length, as codecs round it.
_SLACK_FRAMES = FRAME_RATE // 2

Progress = Callable[[str, float], None]
"""Called with a description of the current work and the fraction of it that is done."""


class TranscriptionError(RuntimeError):
    """A file has no input that the model can use."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """The transcript of one piece of a file.

    Attributes:
        start: seconds from the beginning of the file.
        end: likewise.
        text: the words.
        score: of the hypothesis, see `Hypothesis`.
        modalities: inputs that were used.
    """

    start: float
    end: float
    text: str
    score: float
    modalities: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Piece:
    """The model's input for one piece of a file.

    Attributes:
        start: seconds from the beginning of the file.
        end: likewise.
        speech: waveform ``(samples,)`` at 16 kHz; None without sound.
        video: grey mouth crops, uint8 ``(T, 96, 96)`` at 25 fps; None without a face.
    """

    start: float
    end: float
    speech: np.ndarray | None
    video: np.ndarray | None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The inputs that are present."""
        return tuple(m.name for m in MODALITIES.values() if getattr(self, m.data_name) is not None)


@dataclasses.dataclass(frozen=True)
class _Face:
    """Position of the mouth in a video.

    Attributes:
        transforms: ``(T, 2, 3)``, one per source frame, see `crop_transforms`.
        seen: source frames in which a face was found.
    """

    transforms: np.ndarray
    seen: np.ndarray


class Transcriber:
    """Transcribes media files with a trained model.

    Args:
        speech2text: the model.
        modalities: inputs to use, all of which a file must have; None uses those that the model
            takes and the file has.
        landmarks: finds faces; None reads a landmark file beside the video or else runs dlib.
        max_seconds: length limit of the pieces that are recognised at once.
        progress: called as the work proceeds.
    """

    def __init__(
        self,
        speech2text: AVSRSpeech2Text,
        *,
        modalities: tuple[str, ...] | None = None,
        landmarks: LandmarkProvider | None = None,
        max_seconds: float = 15.0,
        progress: Progress = lambda what, share: None,
    ):
        frontends = speech2text.model.frontends
        own = speech2text.view.modalities
        unknown = [m for m in modalities or () if m not in own]
        if unknown:
            raise ValueError(f"the model takes {' and '.join(own)}, not {' and '.join(unknown)}")
        self.speech2text = speech2text
        self.modalities = modalities or own
        self.must_have_all = modalities is not None or len(own) == 1
        self.landmarks = landmarks
        self.progress = progress
        limits = [frontend.max_seconds for frontend in frontends.values()]
        self.max_seconds = min([max_seconds, *(limit for limit in limits if limit is not None)])
        preprocess = speech2text.preprocess
        self.min_frames = max(1, preprocess.video_multiple)

    def __call__(self, path: str | Path, warn: Callable[[str], None]) -> Iterator[Segment]:
        """Transcribe a file, piece by piece; arguments and errors are those of :meth:`pieces`."""
        for piece in self.pieces(path, warn):
            if piece.modalities:
                yield self.recognise(piece)

    def recognise(self, piece: Piece) -> Segment:
        """Recognise a piece from the inputs that it has."""
        [(text, _, _, score), *_] = self.speech2text(piece.speech, piece.video, allow_missing=True)
        return Segment(piece.start, piece.end, text, score, piece.modalities)

    def pieces(self, path: str | Path, warn: Callable[[str], None]) -> Iterator[Piece]:
        """Read a file, find the mouth, and cut audio and video at pauses.

        Args:
            path: video or audio file.
            warn: called with the reason why an input is not used.

        Raises:
            TranscriptionError: the file has no input that can be used.
            MediaError: the file cannot be read.
        """
        path = Path(path)
        samples, audio_start = self._audio(path, warn)
        film = Video(path)
        face = self._face(film, warn)
        if samples is None and face is None:
            raise TranscriptionError(
                f"{path}: found no {' or '.join(self.modalities)} to recognise"
            )
        crops, frames = iter(()), 0
        if face is not None:
            crops = _crops(film, face)
            video_start, frames = _extent(film)
            if samples is not None:
                # Audio and video begin together.
                samples = shift(samples, round((audio_start - video_start) * SAMPLE_RATE))
                if abs(len(samples) / SAMPLES_PER_FRAME - frames) < _SLACK_FRAMES:
                    # As in data preparation, the video sets the length.
                    samples = fit(samples, frames * SAMPLES_PER_FRAME)
        if samples is not None:
            # A remainder shorter than a frame is ignored.
            frames = max(frames, len(samples) // SAMPLES_PER_FRAME, 1)
        for start, end in cut_at_pauses(samples, frames, max_seconds=self.max_seconds):
            video = self._video(crops, end - start)
            speech = self._speech(samples, start, end)
            if video is None and face is not None:
                times = f"{start / FRAME_RATE:.1f} to {end / FRAME_RATE:.1f} s"
                rest = "nothing" if speech is None else "only the audio"
                warn(f"no face from {times}: recognising {rest} there")
            yield Piece(start / FRAME_RATE, end / FRAME_RATE, speech, video)
            self.progress("recognising", end / frames)

    def _audio(self, path: Path, warn: Callable[[str], None]) -> tuple[np.ndarray | None, float]:
        if "audio" not in self.modalities:
            return None, 0.0
        try:
            speech, start = read_audio(path)
        except (NoAudioStreamError, EmptyMediaError) as e:
            if self.must_have_all:
                raise
            warn(f"{e.cause}: recognising only the video")
            return None, 0.0
        # Floating-point samples may exceed full scale.
        return speech / max(np.abs(speech).max(initial=1.0), 1.0), start

    def _face(self, film: Video, warn: Callable[[str], None]) -> _Face | None:
        if "video" not in self.modalities:
            return None
        try:
            landmarks, seen = self._find(film, warn)
            return _Face(crop_transforms(landmarks), seen)
        except (NoVideoStreamError, EmptyMediaError) as e:
            cause = e.cause
        except (NoFaceError, LandmarkError) as e:
            cause = str(e)
        if self.must_have_all:
            raise TranscriptionError(f"{film.path}: {cause}; there is no video to recognise")
        warn(f"{cause}: recognising only the audio")
        return None

    def _find(self, film: Video, warn: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray]:
        path = Path(film.path)
        next(iter(film))  # before dlib starts: raises for a file without pictures
        beside = find_beside(path) if self.landmarks is None else None
        if beside is not None:
            landmarks = read_landmarks(beside)
            frames = 1 + max(picture.index for picture in film)
            if abs(frames - len(landmarks)) > LANDMARK_SLACK:
                raise LandmarkError(
                    f"{beside} has landmarks of {len(landmarks)} frames, but {path.name} has "
                    f"{frames}: replace the file or remove it"
                )
        else:
            provider = self._dlib if self.landmarks is None else self.landmarks
            if hasattr(provider, "progress"):
                total = max(duration(path), 1e-3)
                provider.progress = lambda picture: self.progress(
                    "finding the face", min(picture.time / total, 1.0)
                )
            landmarks = find_landmarks(provider, path.stem, film)
            faces = getattr(provider, "most_faces", 1)
            if faces > 1:
                warn(f"{faces} faces in a picture: using the largest")
            if getattr(provider, "seen", None):
                return landmarks, np.asarray(provider.seen)
        return landmarks, np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))

    @functools.cached_property
    def _dlib(self) -> LandmarkProvider:
        return DlibLandmarks()

    def _video(self, crops: Iterator[tuple[np.ndarray, bool]], frames: int) -> np.ndarray | None:
        """Return a piece's mouth crops ``(frames, 96, 96)``, or None if under half have a face."""
        given = list(itertools.islice(crops, frames))
        if 2 * sum(seen for _, seen in given) < frames:
            return None
        pictures = [picture for picture, _ in given]
        # Where the video ends before the audio, its last picture is repeated.
        pictures += [pictures[-1]] * (max(frames, self.min_frames) - len(pictures))
        return np.stack(pictures)

    def _speech(self, samples: np.ndarray | None, start: int, end: int) -> np.ndarray | None:
        """Return a piece's samples, or None if the audio ended before it."""
        if samples is None:
            return None
        piece = samples[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME]
        wanted = max(end - start, self.min_frames) * SAMPLES_PER_FRAME
        return np.pad(piece, (0, max(0, wanted - len(piece)))) if len(piece) else None


def _extent(film: Video) -> tuple[float, int]:
    """Return the start time of a video in seconds and its number of frames at 25 fps."""
    start, count = 0.0, 0
    for picture in film:
        start = picture.time if count == 0 else start
        count += 1
    return start, count


def _crops(film: Video, face: _Face) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield each mouth crop, and whether a face was found within half a second of it."""
    gap = FRAME_RATE // 2
    for picture in film:
        index = min(picture.index, len(face.transforms) - 1)
        after = np.searchsorted(face.seen, picture.index)
        near = face.seen[max(after - 1, 0) : after + 1]
        seen = bool(len(near)) and int(np.abs(near - picture.index).min()) <= gap
        yield crop(picture.grey(), face.transforms[index]), seen
