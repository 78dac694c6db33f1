"""Defaults of the options that a config leaves out."""

import argparse
from typing import Any

from espnet2.tasks.abs_task import optim_classes, scheduler_classes
from espnet2.utils.get_default_kwargs import get_default_kwargs

from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.tasks.registered import CHOICES


def default_options(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return ``*_conf`` → the defaults in the signature of the class that takes it.

    ``decoder_conf.prompt`` has none: the task chooses it for the model's modalities.
    """
    classes = {choices.name: choices.get_class(getattr(args, choices.name)) for choices in CHOICES}
    classes["model"] = ESPnetAVSRModel
    classes["optim"] = optim_classes[args.optim]
    classes["scheduler"] = None if args.scheduler is None else scheduler_classes[args.scheduler]
    found = {
        f"{kind}_conf": get_default_kwargs(class_)
        for kind, class_ in classes.items()
        if class_ is not None
    }
    found["decoder_conf"].pop("prompt", None)
    return found
