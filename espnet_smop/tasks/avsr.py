"""The ESPnet task: its arguments, and building a model from them."""

import argparse
import itertools
import logging
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from espnet2.fileio.read_text import load_num_sequence_text
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks.abs_task import AbsTask, IteratorOptions
from espnet2.torch_utils.safe_torch_load import safe_torch_load
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.distributed_utils import DistributedOption
from espnet2.utils.build_dataclass import build_dataclass
from espnet2.utils.get_default_kwargs import get_default_kwargs
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str2bool
from safetensors.torch import load_file
from torch import nn

from espnet_smop.base_model import BaseModelError, resolve_relative_to
from espnet_smop.class_path import is_own
from espnet_smop.decoder.prompt import prompt_for
from espnet_smop.fileio import sound, video
from espnet_smop.fileio.table import read_table
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.precomputed import PrecomputedFeatures
from espnet_smop.modality import MODALITIES
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.tasks.cached_features import check_caches, check_replaceable, has_precomputed
from espnet_smop.tasks.class_choices import build
from espnet_smop.tasks.config_parser import BasedConfigParser
from espnet_smop.tasks.defaults import default_options
from espnet_smop.tasks.problems import (
    limit_problems,
    model_problems,
    parameter_problems,
    settings_problems,
)
from espnet_smop.tasks.registered import (
    CHOICES,
    FRONTEND_CHOICES,
    decoder_choices,
    preprocessor_choices,
    projector_choices,
)
from espnet_smop.tasks.settings import SettingsError, check_none
from espnet_smop.text_table import text_table
from espnet_smop.train.abs_preprocessor import AbsAVPreprocessor
from espnet_smop.train.data_workers import data_workers
from espnet_smop.train.lock import experiment_lock
from espnet_smop.train.projector_lr import scale_projector_lr
from espnet_smop.train.ranks import (
    RankIterFactory,
    connection_errors,
    end_with_parent,
    errors_of_ranks,
    rank_errors,
)
from espnet_smop.train.resume import check_resumed_config, trained_fingerprints
from espnet_smop.train.token_batches import Counts, TokenBatchSampler, prefix_lengths
from espnet_smop.train.trainer import AVSRTrainer
from espnet_smop.views import TASKS, tasks_of

sound.register()
video.register()

TOKENS = "tokens"
"""The `batch_type` of `TokenBatchSampler`."""

_models: weakref.WeakValueDictionary[int, ESPnetAVSRModel] = weakref.WeakValueDictionary()
"""id of arguments → the model built from them, with which token batches count.

ESPnet passes its iterators only the arguments, and writes all of these into config.yaml, so that
the model cannot be one of them. Building another model for counting would load the LLM twice if a
user's own class does not work on the meta device.
"""


class AVSRTask(AbsTask):
    """Training and loading of :class:`~espnet_smop.model.ESPnetAVSRModel`."""

    num_optimizers = 1
    trainer = AVSRTrainer
    class_choices_list = CHOICES

    @classmethod
    def get_parser(cls) -> BasedConfigParser:
        """Return the parser of all arguments; its ``--config`` may name a base."""
        return BasedConfigParser(super().get_parser())

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of this task to ESPnet's."""
        group = parser.add_argument_group(description="Task related")
        group.add_argument(
            "--base_fingerprints",
            action=NestedDictAction,
            default={},
            help="Fingerprints of the frozen base models. Training writes them into config.yaml, "
            "and a model refuses base models other than those of its training",
        )
        group.add_argument(
            "--model_conf",
            action=NestedDictAction,
            default=get_default_kwargs(ESPnetAVSRModel),
            help="Arguments of the model as a whole, such as ctc_warmup_steps: the number of first "
            "steps that train the projector alone, by CTC against the LLM's embeddings",
        )
        group.add_argument(
            "--projector_lr_scale",
            type=float,
            default=1.0,
            help="The projector's learning rate as a multiple of the schedule's; not applied "
            "during ctc_warmup_steps",
        )
        group.add_argument(
            "--inference_conf",
            action=NestedDictAction,
            default={},
            help="Decoding settings of this model (beam_size, length_penalty, …), the defaults of "
            "avsr_inference",
        )
        for action in parser._actions:
            if action.dest in ("batch_type", "valid_batch_type"):
                action.choices = [*action.choices, TOKENS]
            if action.dest == "num_workers":
                action.type = data_workers
                action.help = "Data loading processes; auto: up to four, where a GPU trains"
        group.add_argument(
            "--batch_limits",
            action=NestedDictAction,
            default={},
            help="For batch_type: tokens, where batch_bins limits a batch's LLM positions, padding "
            "included: further limits on its video frames (frames) and transcript tokens (text)",
        )
        group.add_argument(
            "--allow_changed_config",
            type=str2bool,
            default=False,
            help="Resume even if training settings differ from those in the experiment's "
            "config.yaml. Model settings can never change",
        )
        group.add_argument(
            "--nonfinite_patience",
            type=int,
            default=10,
            help="Abort after more than this many consecutive batches with a NaN or infinite loss, "
            "whose updates are skipped. The last batch is saved and its utterances are named",
        )
        group = parser.add_argument_group(description="Preprocess related")
        group.add_argument(
            "--use_preprocessor",
            type=str2bool,
            default=True,
            help="Apply the preprocessor to the data",
        )
        for choices in cls.class_choices_list:
            choices.add_arguments(group)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[
        [Collection[tuple[str, dict[str, np.ndarray]]]],
        tuple[list[str], dict[str, torch.Tensor]],
    ]:
        """Return the function that pads utterances into a batch.

        Precomputed features are passed as the input that they replace.
        """
        collate = CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)
        return partial(_collate, collate)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> AbsAVPreprocessor | None:
        """Return the preprocessor, with the decoder's tokenizer."""
        if not args.use_preprocessor:
            return None
        encode_text = decoder_choices.get_class(args.decoder).text_encoder(args.decoder_conf)
        return preprocessor_choices.build(args, train, encode_text)

    @classmethod
    def set_noise(cls, args: argparse.Namespace, noise: dict[str, Any] | None) -> None:
        """Set the noise for evaluation, or none, independently of training.

        Args:
            args: of the training; their ``preprocessor_conf`` is replaced.
            noise: arguments of :class:`~espnet_smop.train.noise.NoiseAdder`, or None.

        Raises:
            ValueError: the preprocessor takes no noise.
        """
        if preprocessor_choices.takes(args, "noise"):
            args.preprocessor_conf = {**args.preprocessor_conf, "noise": noise}
            if preprocessor_choices.takes(args, "noise_in_validation"):
                args.preprocessor_conf["noise_in_validation"] = noise is not None
        elif noise is not None:
            raise ValueError(f"the preprocessor {args.preprocessor} has no option 'noise'")

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Return ``text``; the model itself reports missing speech or video."""
        return () if inference else ("text",)

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Return all inputs; the model takes those that it has a frontend for.

        In training, features of a frozen frontend can replace its input.
        """
        names = tuple(modality.data_name for modality in MODALITIES.values())
        if inference:
            return (*names, "text")
        return (*names, *(modality.feats_name for modality in MODALITIES.values()))

    @classmethod
    def build_iter_options(
        cls, args: argparse.Namespace, distributed_option: DistributedOption, mode: str
    ):
        """Check precomputed features, then return ESPnet's options of an iterator.

        Raises:
            FeatureCacheError: the features are another model's, or lack an utterance.
        """
        options = super().build_iter_options(args, distributed_option, mode)
        check_caches(
            args,
            options.data_path_and_name_and_type,
            options.shape_files,
            train=mode == "train",
        )
        return options

    @classmethod
    def build_sequence_iter_factory(
        cls, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
    ) -> AbsIterFactory:
        """Return ESPnet's iterator, or with ``batch_type: tokens`` one over token batches.

        Raises:
            ValueError: the limits are too small for an utterance, or settings are missing.
        """
        if iter_options.batch_type != TOKENS:
            return super().build_sequence_iter_factory(args, iter_options, mode)
        rank, world_size = 0, 1
        if iter_options.distributed:
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        sampler = TokenBatchSampler(
            _counts(args, iter_options),
            {"tokens": iter_options.batch_bins, **args.batch_limits},
            world_size=world_size,
        )
        logging.info("[%s] Batch sampler: %s", mode, sampler)
        batches = [batch[rank::world_size] for batch in sampler]
        dataset = cls.build_dataset(args, iter_options, set(itertools.chain(*batches)))
        logging.info("[%s] dataset:\n%s", mode, dataset)
        return RankIterFactory(
            rank=rank,
            dataset=dataset,
            batches=batches,
            seed=args.seed,
            num_iters_per_epoch=iter_options.num_iters_per_epoch,
            shuffle=iter_options.train,
            num_workers=args.num_workers,
            collate_fn=iter_options.collate_fn,
            pin_memory=args.ngpu > 0,
        )

    @classmethod
    def main(cls, args: argparse.Namespace | None = None, cmd: Sequence[str] | None = None) -> None:
        """Check all settings, then train.

        Raises:
            SettingsError: settings are wrong; names each.
        """
        if args is None:
            args = cls.get_parser().parse_args(cmd)
        if not args.print_config:
            cls.check_required_command_args(args)
            check_none(settings_problems(args))
            model = cls.build_skeleton(args)
            if model is not None:
                check_none(parameter_problems(args, model))
        with errors_of_ranks():
            super().main(args=args)

    @classmethod
    def check_required_command_args(cls, args: argparse.Namespace) -> None:
        """Raise ValueError, without ESPnet's pages of help, if an argument is missing."""
        missing = [f"--{name}" for name in args.required if getattr(args, name) is None]
        if missing:
            raise ValueError(f"the argument {', '.join(missing)} is required")

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """Train as a single process, or as one of the processes that ESPnet starts on a node.

        The first process locks the experiment's directory and compares its config with these
        arguments before anything is loaded or written.

        Raises:
            ExperimentInUseError: another process is training in the directory.
            ChangedConfigError: it holds a training with other settings.
            BaseModelError: it was trained with other base models.
        """
        if args.multiprocessing_distributed:
            end_with_parent()
        is_started_by_main = args.multiprocessing_distributed and parent_process() is not None
        with rank_errors(args.dist_rank) if is_started_by_main else nullcontext():
            cls._train(args)

    @classmethod
    def _train(cls, args: argparse.Namespace) -> None:
        option = build_dataclass(DistributedOption, args)
        option.init_options()
        trains = not (args.dry_run or args.collect_stats)
        with connection_errors():
            if not trains or (option.distributed and option.dist_rank != 0):
                super().main_worker(args)
                return
            with experiment_lock(args.output_dir):
                check_resumed_config(args, default_options(args))
                # Compared when the model is built, before anything is written.
                args.base_fingerprints = trained_fingerprints(Path(args.output_dir))
                super().main_worker(args)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> ESPnetAVSRModel:
        """Build the model. Its base models' fingerprints are checked, or recorded in ``args``.

        `main` and `load_model` check the settings of all parts beforehand (`check_model`): here
        the first base model is loaded before the settings of the next part are read.

        Raises:
            BaseModelError: a base model is missing or is not the one of the experiment.
            FeatureCacheError: precomputed features cannot replace a frontend.
            ValueError: no frontend, an unknown class, or a wrong key in a ``*_conf``.
        """
        model = cls._build_model(args)
        _check_fingerprints(args, model.fingerprints())
        _models[id(args)] = model
        if model.warm_start is not None and (tokens := cls._transcript_tokens(args)):
            model.warm_start.restrict_to(tokens)
        logging.info("Trained parameters:\n%s", trained_table(model))
        return model

    @classmethod
    def _transcript_tokens(cls, args: argparse.Namespace) -> set[int]:
        """Return the token ids in the transcripts that the arguments name."""
        texts = [
            text
            for kind in ("train", "valid")
            for path, name, _ in getattr(args, f"{kind}_data_path_and_name_and_type", None) or []
            if name == "text"
            for text in read_table(path).values()
        ]
        preprocess = cls.build_preprocess_fn(args, train=False) if texts else None
        if preprocess is None:
            return set()
        return {i for text in texts for i in preprocess("", {"text": text})["text"].tolist()}

    @classmethod
    def build_optimizers(
        cls, args: argparse.Namespace, model: ESPnetAVSRModel
    ) -> list[torch.optim.Optimizer]:
        """Return ESPnet's optimizer, with ``projector_lr_scale``."""
        optimizers = super().build_optimizers(args, model)
        if args.projector_lr_scale != 1:
            scale_projector_lr(optimizers[0], model, args.projector_lr_scale)
        return optimizers

    @classmethod
    def own_classes(cls, args: argparse.Namespace) -> list[str]:
        """Return the model's classes that are not of this package, as ``kind: path``."""
        kinds = [c.name for c in cls.class_choices_list if c is not preprocessor_choices]
        return [f"{kind}: {getattr(args, kind)}" for kind in kinds if is_own(getattr(args, kind))]

    @classmethod
    def check_model(cls, args: argparse.Namespace) -> None:
        """Check settings and base models of all parts, without loading any weights.

        Raises:
            BaseModelError: a base model is missing or of another kind.
            SettingsError: a setting is wrong.
        """
        check_none(model_problems(args))
        cls.build_skeleton(args)

    @classmethod
    def build_skeleton(cls, args: argparse.Namespace) -> ESPnetAVSRModel | None:
        """Build the model without weights, on the meta device, which takes about a second.

        Returns:
            The model; None if there are `own_classes`, which may not work on that device.

        Raises:
            BaseModelError: a base model is missing or of another kind.
            ValueError: a setting has a wrong value.
        """
        if cls.own_classes(args):
            return None
        args = argparse.Namespace(**{**vars(args), "base_fingerprints": {}})
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                return cls._build_model(args)
        except (BaseModelError, SettingsError):
            raise
        except (TypeError, ValueError) as e:
            raise SettingsError(" ".join(str(e).split())) from e

    @classmethod
    def _build_model(cls, args: argparse.Namespace) -> ESPnetAVSRModel:
        frontends: dict[str, AbsAVFrontend] = {}
        for modality, choices in FRONTEND_CHOICES.items():
            frontend = choices.build(args)
            if frontend is not None and has_precomputed(args, modality):
                check_replaceable(args, modality, frontend)
                frontend = PrecomputedFeatures(frontend)
            if frontend is not None:
                frontends[modality] = frontend
        if not frontends:
            raise ValueError("set audio_frontend (whisper), video_frontend (avhubert) or both")
        if decoder_choices.takes(args, "prompt") and args.decoder_conf.get("prompt") is None:
            # The prompt belongs to the experiment: inference takes it from config.yaml
            tasks = tasks_of(args.model_conf.get("tasks"), frontends)
            prompts = {task: prompt_for(TASKS[task]) for task in tasks}
            prompt = prompts if len(prompts) > 1 else prompts.popitem()[1]
            args.decoder_conf = {**args.decoder_conf, "prompt": prompt}
        decoder = decoder_choices.build(args)
        projector = projector_choices.build(
            args,
            {modality: frontend.output_size() for modality, frontend in frontends.items()},
            decoder.embed_size,
            {modality: frontend.num_layers for modality, frontend in frontends.items()},
        )
        return build(
            "model",
            partial(
                ESPnetAVSRModel,
                audio_frontend=frontends.get("audio"),
                video_frontend=frontends.get("video"),
                projector=projector,
                decoder=decoder,
            ),
            args.model_conf,
        )

    @classmethod
    def load_model(
        cls, config_file: str, model_file: str | None = None, device: str = "cpu"
    ) -> tuple[ESPnetAVSRModel, argparse.Namespace]:
        """Build the model of an experiment and load its trained parameters.

        Unlike ESPnet's ``build_model_from_file``, missing keys are an error, and base models whose
        paths are relative to the experiment are found from any working directory.

        Args:
            config_file: ``config.yaml`` of the experiment.
            model_file: checkpoint of a training, or a safetensors file; None keeps the random
                initialisation.
            device: ``cpu`` or ``cuda``.

        Raises:
            SettingsError: settings are wrong; found before a base model is loaded.
            BaseModelError: a base model is missing or is not the one of the experiment.
        """
        with open(config_file, encoding="utf-8") as file:
            args = argparse.Namespace(**yaml.safe_load(file))
        # Decoding starts from waveforms and pictures, even if training read features.
        args.train_data_path_and_name_and_type = args.valid_data_path_and_name_and_type = []
        for choices in (*FRONTEND_CHOICES.values(), decoder_choices):
            conf = getattr(args, f"{choices.name}_conf")
            on_cpu = torch.device(device).type == "cpu"
            if on_cpu and choices.takes(args, "dtype") and not conf.get("dtype"):
                conf["dtype"] = "float32"  # null means bfloat16 where there is a GPU
            for key in ("model", "tokenizer"):
                if conf.get(key):
                    conf[key] = resolve_relative_to(conf[key], Path(config_file).resolve().parent)
        cls.check_model(args)
        model = cls.build_model(args).to(device)
        if model_file is not None and Path(model_file).suffix == ".safetensors":
            model.load_state_dict(load_file(model_file, device=device))
        elif model_file is not None:
            model.load_state_dict(safe_torch_load(model_file, map_location=device))
        return model.eval(), args


def _collate(
    collate: CommonCollateFn, data: Collection[tuple[str, dict[str, np.ndarray]]]
) -> tuple[list[str], dict[str, torch.Tensor]]:
    keys, batch = collate(data)
    for modality in MODALITIES.values():
        if modality.feats_name in batch:
            for end in ("", "_lengths"):
                batch[modality.data_name + end] = batch.pop(modality.feats_name + end)
    return keys, batch


def _counts(args: argparse.Namespace, iter_options: IteratorOptions) -> Counts:
    """Return the lengths of the shape file's utterances: frames, text and LLM positions."""
    check_none(limit_problems(args))
    texts = [path for path, name, _ in iter_options.data_path_and_name_and_type if name == "text"]
    if len(iter_options.shape_files) != 1 or not texts or iter_options.preprocess_fn is None:
        raise ValueError(
            "batch_type: tokens needs one shape file (duration_shape), the data name 'text' and "
            "use_preprocessor: true"
        )
    shapes = load_num_sequence_text(iter_options.shape_files[0], loader_type="csv_int")
    transcripts = {k: t for k, t in read_table(texts[0]).items() if k in shapes}
    counts = iter_options.preprocess_fn.count_text(list(transcripts.values()))
    model = _models.get(id(args))
    if model is None:
        raise ValueError("batch_type: tokens counts the model's tokens: call build_model first")
    return Counts.of(
        {key: shape[0] for key, shape in shapes.items()},
        dict(zip(transcripts, counts, strict=True)),
        prefix=partial(
            prefix_lengths,
            frontends=model.frontends,
            projector=model.projector,
            decoder=model.decoder,
            steps=model.views.steps,
        ),
        readings=len(model.views.steps[0]),
    )


def _check_fingerprints(args: argparse.Namespace, found: dict[str, str]) -> None:
    expected = getattr(args, "base_fingerprints", None) or {}
    differing = [name for name, value in expected.items() if found.get(name) != value]
    if differing:
        details = ", ".join(
            f"{name} (expected {expected[name]}, found {found.get(name, 'none')})"
            for name in differing
        )
        raise BaseModelError(
            f"base models differ from those of the experiment's training: {details}. "
            "Check the `model:` settings in config.yaml"
        )
    args.base_fingerprints = found


def trained_table(model: nn.Module) -> str:
    """Return a table of modules, their parameters and how many of them are trained."""
    rows, totals = [], [0, 0]
    for name, module in _parts(model):
        count = sum(p.numel() for p in module.parameters())
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        totals = [totals[0] + count, totals[1] + trained]
        rows.append((name, count, trained))
    rows.append(("all", *totals))
    cells = [
        (name, f"{count:,}", f"{trained:,}", f"{100 * trained / max(count, 1):.2f}")
        for name, count, trained in rows
    ]
    return text_table(("module", "parameters", "trained", "%"), cells, align="lrrr")


def _parts(model: nn.Module):
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleDict):
            yield from ((f"{name}.{key}", module) for key, module in child.items())
        elif any(True for _ in child.parameters()):
            yield name, child
