"""Published fairseq checkpoints of AV-HuBERT, read without fairseq and without running a pickle."""

import pickle
import types
import zipfile
from pathlib import Path

import torch

from espnet_smop.base_model import BaseModelError
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel, check_weights

# What a pickle may call: constructors of containers and tensors. Storages are resolved by
# torch.load itself.
_ADMITTED = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
# Packages whose objects lie in training state that nobody here reads: stand-ins will do.
_INERT = {"argparse", "fairseq", "numpy", "omegaconf", "hubert", "hubert_asr", "hubert_pretraining"}

# Parts that only pretraining uses.
_HEADS = ("mask_emb", "label_embs_concat", "final_proj.", "target_glu.")
_STEM = "feature_extractor_video.resnet.frontend3D.0.weight"
# Settings of which every published model has the same, and the only, value supported here.
_FIXED = {
    "layer_norm_first": True,
    "activation_fn": "gelu",
    "modality_fuse": "concat",
    "sub_encoder_layers": 0,
}


class _StandIn:
    """Takes any construction and any state, and does nothing but keep what it was given."""

    def __init__(self, *args, **kwargs):
        self.state = None

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        pass

    def append(self, value):
        pass

    def extend(self, values):
        pass


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) in _ADMITTED:
            return super().find_class(module, name)
        if module.partition(".")[0] in _INERT:
            return type(name, (_StandIn,), {"__module__": module})
        raise pickle.UnpicklingError(f"{module}.{name}")


def _load(file, **kwargs):
    return _RestrictedUnpickler(file, **kwargs).load()


# What torch.load asks of a pickle module.
_RESTRICTED = types.SimpleNamespace(
    __name__=__name__,
    Unpickler=_RestrictedUnpickler,
    load=_load,
    UnpicklingError=pickle.UnpicklingError,
)


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint of tensors and plain containers.

    A pickle may call functions of its author's choice while it is read. Here it gets tensors,
    containers, and, for objects of fairseq and of the packages its training state refers to,
    stand-ins that do nothing; the first other name it asks for ends the reading.

    Raises:
        BaseModelError: the file is no checkpoint, or asks for anything else; names it.
    """
    if not Path(path).is_file():
        raise BaseModelError(f"there is no file {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("constants.pkl") for name in archive.namelist()):
                    # torch.load would hand it to torch.jit, which no unpickler restrains.
                    raise BaseModelError(f"{path} is a TorchScript archive, not a checkpoint")
        checkpoint = torch.load(
            path, map_location="cpu", pickle_module=_RESTRICTED, weights_only=False
        )
    except BaseModelError:
        raise
    except pickle.UnpicklingError as e:
        raise BaseModelError(
            f"{path} was not read: its pickle asks for '{e}', which no AV-HuBERT checkpoint "
            "needs. The file may be damaged or malicious: fetch it again from its publisher"
        ) from e
    except Exception as e:  # a damaged pickle may raise anything
        cause = next(iter(str(e).splitlines()), type(e).__name__)
        raise BaseModelError(f"{path} cannot be read as a PyTorch checkpoint: {cause}") from e
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise BaseModelError(f"{path} is no fairseq checkpoint: it has no entry 'model'")
    return checkpoint


def convert(
    checkpoint: dict, *, source: str = "checkpoint"
) -> tuple[AVHuBERTConfig, dict[str, torch.Tensor]]:
    """Turn a fairseq checkpoint of AV-HuBERT into a config and weights for `AVHuBERTModel`.

    Pretrained and fine-tuned checkpoints (the encoder under a prefix, a decoder beside it) are
    taken, in any floating-point precision, which is kept. Pretraining heads are left out.

    Raises:
        BaseModelError: it is not an AV-HuBERT, its config lacks a size or has a setting that is
            not supported, or its weights do not fit; lists them.
    """
    state = checkpoint["model"]
    prefixes = [name.removesuffix(_STEM) for name in state if name.endswith(_STEM)]
    if len(prefixes) != 1:
        raise BaseModelError(f"{source}: no AV-HuBERT encoder in it (no weight ends in {_STEM})")
    prefix = prefixes[0]
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(_HEADS)
    }
    settings = _model_settings(checkpoint)
    config = _config(settings, weights, source)
    with torch.device("meta"):
        model = AVHuBERTModel(config)
    check_weights(model, weights, source=source)
    return config, weights


def _as_dict(value) -> dict:
    """View a nested config as a dict, also where it was an ``argparse.Namespace``."""
    if isinstance(value, _StandIn):
        value = value.state
    return value if isinstance(value, dict) else {}


def _model_settings(checkpoint: dict) -> dict:
    """Find the encoder's settings; a fine-tuned checkpoint carries the pretrained one's inside."""
    top = _as_dict(checkpoint.get("cfg")) or {"model": checkpoint.get("args")}
    settings = _as_dict(top.get("model"))
    while "encoder_layers" not in settings and settings.get("w2v_args") is not None:
        inner = _as_dict(settings["w2v_args"])
        settings = _as_dict(inner.get("model")) or inner
    return settings


def _config(settings: dict, weights: dict[str, torch.Tensor], source: str) -> AVHuBERTConfig:
    required = (
        "encoder_layers",
        "encoder_embed_dim",
        "encoder_ffn_embed_dim",
        "encoder_attention_heads",
    )
    missing = [name for name in required if name not in settings]
    if missing:
        raise BaseModelError(f"{source}: its config does not give {', '.join(missing)}")
    unsupported = [
        f"{name}: {settings[name]} (only {value})"
        for name, value in _FIXED.items()
        if settings.get(name, value) != value
    ]
    if unsupported:
        raise BaseModelError(f"{source}: not supported: {', '.join(unsupported)}")
    optional = (
        "conv_pos",
        "conv_pos_groups",
        "resnet_relu_type",
        "dropout",
        "attention_dropout",
    )
    audio = weights.get("feature_extractor_audio.proj.weight")
    return AVHuBERTConfig(
        **{name: settings[name] for name in required},
        **{name: settings[name] for name in optional if name in settings},
        # The config has -1 here for models whose task sets it.
        audio_feat_dim=audio.shape[1] if audio is not None else settings.get("audio_feat_dim", 104),
    )
