"""Finds problems with the settings of training and model before anything is built."""

import argparse
from collections.abc import Iterator, Mapping
from functools import partial

from torch import nn

from espnet_smop.class_path import is_own, suggestion, unknown_key
from espnet_smop.modality import MODALITIES
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.tasks.class_choices import OpenClassChoices
from espnet_smop.tasks.registered import (
    FRONTEND_CHOICES,
    decoder_choices,
    preprocessor_choices,
    projector_choices,
)
from espnet_smop.tasks.settings import (
    conf_problems,
    criterion_problems,
    data_problems,
    finite_problems,
    init_param_problems,
    number_problems,
    optimizer_problems,
    text_numbers,
)
from espnet_smop.train.noise import NoiseAdder
from espnet_smop.train.preprocessor import AVSRPreprocessor

_LIMITS = ("frames", "text")


def settings_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield problems with training settings that can be found without building the model."""
    not_finite = list(finite_problems(args))
    yield from not_finite
    if not_finite:
        return  # each would be reported again
    yield from model_problems(args)
    yield from _preprocessor_problems(args)
    yield from optimizer_problems(args)
    yield from _generation_problems(args)
    yield from number_problems(args)
    yield from criterion_problems(args)
    yield from init_param_problems(args)
    yield from data_problems(args)
    yield from limit_problems(args)
    yield from text_numbers("batch_limits", args.batch_limits)


def model_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield problems with the names of the model's classes and of their options."""
    for choices in FRONTEND_CHOICES.values():
        yield from _class_problems(args, choices)
    # input_sizes, output_size and num_layers come from the other parts
    yield from _class_problems(args, projector_choices, num_given=3)
    yield from _class_problems(args, decoder_choices)
    if args.audio_frontend is None and args.video_frontend is None:
        yield "set audio_frontend (whisper), video_frontend (avhubert) or both"
    parts = dict.fromkeys(("audio_frontend", "video_frontend", "projector", "decoder"))
    yield from conf_problems("model_conf", partial(ESPnetAVSRModel, **parts), args.model_conf)
    if args.projector == "smop" and isinstance(args.projector_conf, Mapping):
        # By default 2 experts are chosen wherever there are several.
        num, top_k = (args.projector_conf.get(name) for name in ("num_experts", "top_k"))
        if isinstance(num, Mapping):
            used = [m for m in MODALITIES if getattr(args, f"{m}_frontend") is not None]
            pools = [num.get(modality, top_k) or 1 for modality in used]
            num = max((n for n in pools if isinstance(n, int)), default=None)
        if num == 1 and top_k not in (None, 1):
            yield (
                f"projector_conf: num_experts is 1, but top_k is {top_k}: raise num_experts, or "
                "set top_k: 1 for a dense projector"
            )


def _preprocessor_problems(args: argparse.Namespace) -> Iterator[str]:
    # train and encode_text are the task's
    yield from _class_problems(args, preprocessor_choices, num_given=2)
    if args.preprocessor != "avsr" or not isinstance(args.preprocessor_conf, Mapping):
        return
    noise = args.preprocessor_conf.get("noise")
    if noise is not None:
        found = conf_problems("preprocessor_conf.noise", NoiseAdder, noise)
        yield from found
        if found:
            return
    try:
        AVSRPreprocessor(True, **args.preprocessor_conf)
    except ValueError as e:
        yield f"preprocessor_conf: {e}"
    except TypeError:
        pass  # an unknown key, reported above


def _generation_problems(args: argparse.Namespace) -> Iterator[str]:
    try:
        class_ = decoder_choices.get_class(args.decoder)
    except ValueError:
        return  # reported with the model's classes
    try:
        class_.check_generation(args.inference_conf)
    except ValueError as e:
        yield f"inference_conf: {e}"


def _class_problems(
    args: argparse.Namespace, choices: OpenClassChoices, *, num_given: int = 0
) -> Iterator[str]:
    name, conf = getattr(args, choices.name), getattr(args, f"{choices.name}_conf")
    try:
        class_ = choices.get_class(name)
    except ValueError as e:
        yield str(e)
        return
    if class_ is not None:
        yield from conf_problems(
            f"{choices.name}_conf",
            class_,
            conf,
            num_given=num_given,
            registered=not is_own(name),
        )


def limit_problems(args: argparse.Namespace) -> list[str]:
    """Return a message for each unknown key of ``batch_limits``, or number that is too small."""
    return [
        unknown_key("batch_limits", key, _LIMITS)
        if key not in _LIMITS
        else f"batch_limits.{key} is {value!r}, expected a number of at least 1"
        for key, value in args.batch_limits.items()
        if key not in _LIMITS or not (_at_least_one(value) or any(text_numbers(key, value)))
    ]


def _at_least_one(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 1


def parameter_problems(args: argparse.Namespace, model: nn.Module) -> list[str]:
    """Return a message for each ``--freeze_param`` that is not in the model."""
    names = {name for name, _ in model.named_modules()}
    names |= {name for name, _ in model.named_parameters()}
    return [
        f"--freeze_param {name} is not part of the model{suggestion(name, names)}"
        for name in args.freeze_param
        if name not in names
    ]
