"""Published AV-HuBERT checkpoints, read without fairseq and without executing their pickle."""

import pickle
import types
import zipfile
from pathlib import Path

import torch

from espnet_smop.base_model import BaseModelError
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel, check_weights

# What a pickle may call: constructors of containers and tensors. torch.load resolves storages.
_ADMITTED = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
# Packages whose objects occur in unused training state: stand-ins replace them.
_INERT = {"argparse", "fairseq", "numpy", "omegaconf", "hubert", "hubert_asr", "hubert_pretraining"}

# Parts used only in pretraining.
_HEADS = ("mask_emb", "label_embs_concat", "final_proj.", "target_glu.")
_STEM = "feature_extractor_video.resnet.frontend3D.0.weight"
# Settings that have the same value in all published models; no other is supported.
_FIXED = {
    "layer_norm_first": True,
    "activation_fn": "gelu",
    "modality_fuse": "concat",
    "sub_encoder_layers": 0,
}


class _StandIn:
    """Accepts any arguments and any state, and only keeps the state."""

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


# The interface that torch.load expects of a pickle module.
_RESTRICTED = types.SimpleNamespace(
    __name__=__name__,
    Unpickler=_RestrictedUnpickler,
    load=_load,
    UnpicklingError=pickle.UnpicklingError,
)


def read_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint of tensors and plain containers.

    Reading a pickle may call any function that its author chose. Here it may construct tensors and
    containers; objects of fairseq, and of the packages that its training state refers to, become
    stand-ins that do nothing. Any other name is refused.

    Raises:
        BaseModelError: not a checkpoint, or it refers to another name, given in the message.
    """
    if not Path(path).is_file():
        raise BaseModelError(f"there is no file {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("constants.pkl") for name in archive.namelist()):
                    # torch.load would pass it to torch.jit, which this unpickler cannot restrict.
                    raise BaseModelError(f"{path} is a TorchScript archive, not a checkpoint")
        checkpoint = torch.load(
            path, map_location="cpu", pickle_module=_RESTRICTED, weights_only=False
        )
    except BaseModelError:
        raise
    except pickle.UnpicklingError as e:
        raise BaseModelError(
            f"{path} was not read: its pickle refers to '{e}', which no AV-HuBERT checkpoint "
            "needs. The file may be damaged or malicious: fetch it again from its publisher"
        ) from e
    except Exception as e:  # a damaged pickle may raise anything
        cause = next(iter(str(e).splitlines()), type(e).__name__)
        raise BaseModelError(f"{path} cannot be read as a PyTorch checkpoint: {cause}") from e
    if not isinstance(checkpoint, dict) or "model" not in checkpoint:
        raise BaseModelError(f"{path} is not a fairseq checkpoint: it has no entry 'model'")
    return checkpoint


def convert(
    checkpoint: dict, *, source: str = "checkpoint"
) -> tuple[AVHuBERTConfig, dict[str, torch.Tensor]]:
    """Turn a fairseq checkpoint of AV-HuBERT into a config and weights for `AVHuBERTModel`.

    Pretrained and fine-tuned checkpoints (with the encoder under a prefix, beside a decoder) are
    supported, in any floating-point precision, which is kept. Pretraining heads are dropped.

    Args:
        checkpoint: from `read_checkpoint`.
        source: name of the checkpoint in errors.

    Raises:
        BaseModelError: not an AV-HuBERT, or its config or weights are incomplete or unsupported.
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
    """Return a nested config (dict or ``argparse.Namespace``) as a dict."""
    if isinstance(value, _StandIn):
        value = value.state
    return value if isinstance(value, dict) else {}


def _model_settings(checkpoint: dict) -> dict:
    """Find the encoder's settings, in a fine-tuned checkpoint those of the pretrained model."""
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
        raise BaseModelError(f"{source}: its config lacks {', '.join(missing)}")
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
        # The config has -1 here where the task sets the size.
        audio_feat_dim=audio.shape[1] if audio is not None else settings.get("audio_feat_dim", 104),
    )
