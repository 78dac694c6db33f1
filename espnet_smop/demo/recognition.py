"""What the demo page shows of a clip: a transcript from each input, and the experts' tokens."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import av

from espnet_smop.corpus.landmarks import LandmarkError
from espnet_smop.corpus.media import MediaError, open_media
from espnet_smop.demo.examples import digest
from espnet_smop.inference import Piece, Progress, Segment, Transcriber, TranscriptionError
from espnet_smop.results.expert_usage import Route
from espnet_smop.results.routing_pass import routes, routings
from espnet_smop.train.noise import NoiseAdder

Inputs = tuple[str, ...]
"""Modalities that a transcript is made from."""


class ClipError(RuntimeError):
    """A clip cannot be recognised; the message is for the visitor who gave it."""


@dataclasses.dataclass(frozen=True)
class RecognisedPiece:
    """One piece of a clip.

    Attributes:
        piece: the model's input, babble included.
        transcripts: inputs → their transcript, for the inputs that the piece has.
        routes: of all the inputs' tokens; empty for a projector without routers.
    """

    piece: Piece
    transcripts: dict[Inputs, Segment]
    routes: list[Route]


@dataclasses.dataclass(frozen=True)
class Recognition:
    """A recognised clip.

    Attributes:
        pieces: in order, cut at pauses.
        warnings: inputs that were not used, and why.
    """

    pieces: list[RecognisedPiece]
    warnings: list[str]


class ClipRecogniser:
    """Recognises clips from sound and lips, and from each of them alone, with babble added.

    Args:
        transcriber: the model.
        babble: noise at 16 kHz; None if there is none to add.
        max_seconds: length limit of clips.
        landmarks: digest of a known clip → its landmark file (see `examples.py`).
    """

    def __init__(
        self,
        transcriber: Transcriber,
        *,
        babble: Path | None = None,
        max_seconds: float = 30.0,
        landmarks: Mapping[str, Path] | None = None,
    ):
        self.transcriber = transcriber
        self.babble = babble if "audio" in transcriber.modalities else None
        self.max_seconds = max_seconds
        self.landmarks = landmarks or {}

    @property
    def choices(self) -> list[Inputs]:
        """All inputs of the model together, then each alone if there are several."""
        all_inputs = self.transcriber.modalities
        alone = [(modality,) for modality in all_inputs]
        return [all_inputs, *alone] if len(alone) > 1 else alone

    @property
    def trained_alone(self) -> bool:
        """Whether training had utterances with one input alone, if the model has several."""
        speech2text = self.transcriber.speech2text
        dropout = speech2text.train_args.model_conf.get("modality_dropout")
        return bool(dropout) or len(self.choices) == 1 or len(speech2text.model.views.tasks) > 1

    def __call__(
        self, path: str | Path, snr: float | None, progress: Progress = lambda what, share: None
    ) -> Recognition:
        """Recognise a clip.

        Args:
            path: video or audio file.
            snr: ratio of each piece's energy to that of the babble in dB; None adds none.
            progress: called as the work proceeds.

        Raises:
            ClipError: it cannot be read, is too long or has nothing to recognise.
        """
        self.transcriber.progress = progress
        warnings: list[str] = []
        with self._in_own_folder(Path(path)) as clip:
            try:
                self._check_length(clip)
                found = [
                    self._recognise(self._with_babble(piece, snr))
                    for piece in self.transcriber.pieces(clip, warnings.append)
                    if piece.modalities
                ]
            except MediaError as e:
                raise ClipError(f"{clip.name}: {e.cause}") from e
            except (TranscriptionError, LandmarkError, ValueError, OSError) as e:
                raise ClipError(str(e).replace(f"{clip.parent}/", "")) from e
        if not found:
            raise ClipError(f"{clip.name}: has nothing to recognise")
        return Recognition(found, [w.replace(f"{clip.parent}/", "") for w in warnings])

    @contextlib.contextmanager
    def _in_own_folder(self, path: Path) -> Iterator[Path]:
        """Link to a clip, beside its landmark file if it is a known one."""
        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder) / path.name
            clip.symlink_to(path.absolute())
            landmarks = self.landmarks.get(digest(path)) if self.landmarks else None
            if landmarks is not None:
                clip.with_suffix(landmarks.suffix).symlink_to(landmarks.absolute())
            yield clip

    def _check_length(self, clip: Path) -> None:
        seconds = _length(clip)
        if seconds > self.max_seconds:
            raise ClipError(
                f"{clip.name}: is {seconds:.0f} s long, more than the {self.max_seconds:g} s that "
                "this page accepts"
            )

    def _with_babble(self, piece: Piece, snr: float | None) -> Piece:
        if piece.speech is None or self.babble is None or snr is None:
            return piece
        # The same noise for the same piece, so that levels can be compared.
        add = NoiseAdder(str(self.babble), snr=snr, deterministic=True)
        return dataclasses.replace(piece, speech=add(f"{piece.start}", piece.speech))

    def _recognise(self, piece: Piece) -> RecognisedPiece:
        transcripts = {
            inputs: self.transcriber.recognise(_only(piece, inputs))
            for inputs in self.choices
            if set(inputs) <= set(piece.modalities)
        }
        return RecognisedPiece(piece, transcripts, self._routes(piece))

    def _routes(self, piece: Piece) -> list[Route]:
        speech2text = self.transcriber.speech2text
        model = speech2text.model
        inputs = {"speech": piece.speech, "video": piece.video}
        data = {name: value for name, value in inputs.items() if value is not None}
        _, batch = speech2text.collate([("", speech2text.preprocess("", data))])
        batch = {name: value.to(speech2text.device) for name, value in batch.items()}
        view = model.views.for_modalities(speech2text.view, piece.modalities)
        return routes(model, routings(model, batch, view=view, allow_missing=True), view)


def _only(piece: Piece, inputs: Inputs) -> Piece:
    return dataclasses.replace(
        piece,
        speech=piece.speech if "audio" in inputs else None,
        video=piece.video if "video" in inputs else None,
    )


def _length(clip: Path) -> float:
    """Return a clip's length in seconds by its packets: a header may lack it or be wrong."""
    first, last = float("inf"), float("-inf")
    with open_media(clip) as container, contextlib.suppress(av.FFmpegError):
        for packet in container.demux():
            if packet.pts is not None:
                first = min(first, float(packet.pts * packet.time_base))
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return max(last - first, 0.0)
