"""The registered classes of each kind, by their names in configs: ``projector: smop``."""

from espnet_smop.decoder.abs_decoder import AbsAVDecoder
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.avhubert import AVHuBERTFrontend
from espnet_smop.frontend.whisper import WhisperFrontend
from espnet_smop.projector.abs_projector import AbsProjector
from espnet_smop.projector.mlp import MLPProjector
from espnet_smop.projector.smop import SMoPProjector
from espnet_smop.tasks.class_choices import OpenClassChoices
from espnet_smop.train.abs_preprocessor import AbsAVPreprocessor
from espnet_smop.train.preprocessor import AVSRPreprocessor

audio_frontend_choices = OpenClassChoices(
    "audio_frontend",
    classes={"whisper": WhisperFrontend},
    type_check=AbsAVFrontend,
    default="whisper",
    optional=True,
)
video_frontend_choices = OpenClassChoices(
    "video_frontend",
    classes={"avhubert": AVHuBERTFrontend},
    type_check=AbsAVFrontend,
    default="avhubert",
    optional=True,
)
FRONTEND_CHOICES = {"audio": audio_frontend_choices, "video": video_frontend_choices}
"""Modality → its frontends."""
projector_choices = OpenClassChoices(
    "projector",
    classes={"mlp": MLPProjector, "smop": SMoPProjector},
    type_check=AbsProjector,
    default="smop",
)
decoder_choices = OpenClassChoices(
    "decoder", classes={"llm": LLMDecoder}, type_check=AbsAVDecoder, default="llm"
)
preprocessor_choices = OpenClassChoices(
    "preprocessor",
    classes={"avsr": AVSRPreprocessor},
    type_check=AbsAVPreprocessor,
    default="avsr",
)
CHOICES = [*FRONTEND_CHOICES.values(), projector_choices, decoder_choices, preprocessor_choices]
"""Every kind."""
