"""Low-rank adapters in a frozen base model."""

from collections.abc import Mapping, Sequence

from torch import nn

_KEYS = {"r", "alpha", "dropout", "target_modules"}


def inject_lora(
    base: nn.Module, lora: Mapping, *, names: Sequence[str] = ("default",)
) -> nn.Module:
    """Inject trainable LoRA adapters (Hu et al. 2021) into a frozen base model, in place.

    Args:
        base: a model that `espnet_smop.base_model.freeze` has frozen.
        lora: ``r`` (rank, required), ``alpha`` (the scale is ``alpha / r``; default ``r``),
            ``dropout`` (default 0), ``target_modules`` (default ``[q_proj, v_proj]``).
        names: of parallel adapters, all with these settings. The last is active.

    Returns:
        ``base``. Its adapters are named ``lora_*``, are float32 whatever the base's dtype, and
        start as the identity.

    Raises:
        ValueError: a setting is unknown, missing or of the wrong type.
    """
    from peft import LoraConfig, LoraModel

    if not isinstance(lora, Mapping):
        raise ValueError(f"lora is {lora!r}, expected {{r: …, alpha: …}}, or null for no adapters")
    unknown = sorted(map(str, set(lora) - _KEYS))
    if unknown or "r" not in lora:
        problem = f"unknown settings {unknown}" if unknown else "'r' (the rank) is missing"
        raise ValueError(f"lora: {problem}. It takes {sorted(_KEYS)}, or null for no adapters")
    if not isinstance(lora["r"], int) or lora["r"] < 1:
        raise ValueError(f"lora: r is {lora['r']!r}, expected a whole number of at least 1")
    config = LoraConfig(
        r=lora["r"],
        lora_alpha=lora.get("alpha", lora["r"]),
        lora_dropout=lora.get("dropout", 0.0),
        target_modules=list(lora.get("target_modules", ["q_proj", "v_proj"])),
    )
    tuner = LoraModel(base, config, adapter_name=names[0])
    for name in names[1:]:
        tuner.peft_config[name] = config
        tuner.inject_adapter(base, name)
    for name, parameter in base.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_()  # peft trains the active adapter only
    return base
