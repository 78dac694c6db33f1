"""The model card (README.md) of a package."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from espnet_smop import __version__
from espnet_smop.modality import MODALITIES
from espnet_smop.views import TASKS


def model_card(
    config: Mapping[str, Any],
    *,
    title: str,
    license: str | None,
    base_models: Mapping[str, str],
    on_hub: Sequence[str],
    class_paths: Sequence[str],
    results: str,
) -> str:
    """Return the model card as Markdown.

    Args:
        config: the package's config.
        title: first heading.
        license: identifier for the header, if any.
        base_models: part → base model as the experiment names it.
        on_hub: the base models that are on the hub.
        class_paths: classes, as ``module:Class``, that a user has to provide.
        results: content of RESULTS.md, or empty.
    """
    modalities = [m for m in MODALITIES if config.get(f"{m}_frontend")]
    header: dict[str, Any] = {"library_name": "espnet_smop"}
    if license:
        header["license"] = license
    header["tags"] = ["espnet", "automatic-speech-recognition", *(f"{m}-input" for m in modalities)]
    if on_hub:
        header["base_model"] = list(on_hub)
    prompt = config["decoder_conf"].get("prompt")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("espnet_smop.checkpoint", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("model_card.md.jinja").render(
        title=title,
        header=yaml.safe_dump(header, sort_keys=False).rstrip(),
        version=__version__,
        modalities=modalities,
        projector=config.get("projector"),
        routing=config.get("projector_conf", {}).get("routing"),
        views=_views(config, modalities),
        bases=[_row(config, part, model) for part, model in base_models.items()],
        class_paths=class_paths,
        prompt=prompt if isinstance(prompt, str) else "`, `".join((prompt or {}).values()),
        results=_sections_below(results),
    )


def _views(config: Mapping[str, Any], modalities: Sequence[str]) -> list[str]:
    """Describe the tasks and the rates to choose from; empty if there is one of each."""
    tasks = (config.get("model_conf") or {}).get("tasks") or ()
    tasks = [task for task in TASKS if task in tasks]
    downsample = (config.get("projector_conf") or {}).get("downsample") or {}
    rates = {m: downsample[m] for m in modalities if isinstance(downsample.get(m), list)}
    views = []
    if len(tasks) > 1:
        views.append(f"tasks {', '.join(tasks)} (`--task {tasks[0]}`)")
    if rates:
        listed = "; ".join(f"{m} {', '.join(map(str, several))}" for m, several in rates.items())
        example = ",".join(f"{m}={several[-1]}" for m, several in rates.items())
        views.append(f"encoder frames per token: {listed} (`--rates {example}`)")
    return views


def _row(config: Mapping[str, Any], part: str, model: str) -> dict[str, str]:
    prints = config["base_fingerprints"]
    included = config[f"{part}_conf"]["model"].startswith("bases/")
    return {
        "part": part,
        "place": "in `bases/`" if included else f"`{_without_directories(model)}`",
        "fingerprint": ", ".join(v for k, v in prints.items() if k.startswith(f"{part}.")),
    }


def _without_directories(model: str) -> str:
    # Local paths are of no use to others.
    return Path(model).name if Path(model).expanduser().is_absolute() else model


def _sections_below(results: str) -> str:
    """Return RESULTS.md from its first experiment onwards, with headings one level lower."""
    tables = results[max(results.find("## exp"), 0) :]
    return f"\n{tables}".replace("\n#", "\n##").strip()
