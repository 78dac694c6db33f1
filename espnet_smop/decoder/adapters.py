"""Selects the adapters of an LLM that a view uses."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from peft.tuners.lora import LoraLayer
from torch import nn

from espnet_smop.lora import inject_lora
from espnet_smop.views import View

SHARED = "shared"
"""Name of the LoRA that all views use."""

PER = {"task": lambda view: view.task, "rates": lambda view: view.rates_tag}
"""Value of ``lora.per`` → the name of a view's own adapters."""


class ViewAdapters(Protocol):
    """Adapters within an LLM, some of which belong to some views only."""

    def prepare(self, views: Sequence[View]) -> None:
        """Add the adapters of these views to the LLM."""

    def activate(self, view: View | None) -> None:
        """Use the adapters of a view from now on; None means no view."""


class ActiveView:
    """The view that an LLM uses.

    Example::

        with active_view(view):
            decode()

    Args:
        adapters: those that differ between views.

    Attributes:
        view: None outside of a context.
    """

    def __init__(self, adapters: Sequence[ViewAdapters] = ()):
        self.adapters = list(adapters)
        self.view: View | None = None

    @contextlib.contextmanager
    def __call__(self, view: View | None) -> Iterator[None]:
        """Use the adapters of ``view`` within the context."""
        before = self.view
        self._set(view)
        try:
            yield
        finally:
            self._set(before)

    def again(self) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        """Return contexts for a pass and its recomputation, as ``checkpoint(context_fn=…)`` takes.

        The backward pass recomputes layers after the view's context has ended.
        """
        return contextlib.nullcontext(), self(self.view)

    def _set(self, view: View | None) -> None:
        self.view = view
        for adapters in self.adapters:
            adapters.activate(view)


class LoRAPerView:
    """Separate LoRA for each task or set of rates, optionally added to one that all views share.

    Source: Omni-AVSR's T and ST (arXiv 2511.07253), Llama-MTSK's SS and MSS (arXiv 2503.06362).

    Args:
        llm: the frozen LLM, to which `prepare` adds the adapters.
        lora: settings of `inject_lora`, the same for all.
        per: ``task`` or ``rates``.
        shared: add one for all views.

    Attributes:
        names: of the adapters that were added.
    """

    def __init__(self, llm: nn.Module, lora: Mapping[str, Any], *, per: str, shared: bool):
        if per not in PER:
            raise ValueError(f"lora: per is {per!r}, expected {', '.join(PER)} or null")
        self.llm = llm
        self.lora = lora
        self.name_of = PER[per]
        self.shared = [SHARED] if shared else []
        self.names: list[str] = []
        self._layers: list[LoraLayer] = []

    def prepare(self, views: Sequence[View]) -> None:
        """See ``ViewAdapters``.

        Raises:
            ValueError: ``per: rates``, but the projector has a single rate.
        """
        names = list(dict.fromkeys(self.name_of(view) for view in views))
        if "" in names:
            raise ValueError(
                "lora: per is 'rates', but the projector has a single rate: give "
                "projector_conf.downsample lists of rates, or set per: null"
            )
        self.add([*names, *self.shared])

    def add(self, names: Sequence[str]) -> None:
        """Add adapters with these names."""
        inject_lora(self.llm, self.lora, names=names)
        self.names = list(names)
        self._layers = [m for m in self.llm.modules() if isinstance(m, LoraLayer)]
        self.activate(None)

    def activate(self, view: View | None) -> None:
        """See ``ViewAdapters``."""
        names = [] if view is None else [self.name_of(view), *self.shared]
        if view is not None and names[0] not in self.names:
            own = ", ".join(name for name in self.names if name != SHARED)
            raise ValueError(f"the LLM has LoRA for {own}, but none for '{names[0]}'")
        for layer in self._layers:
            # peft's own `set_adapter` would also freeze the others.
            layer._active_adapter = names
