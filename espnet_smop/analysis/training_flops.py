"""The floating-point operations of training, counted without weights, data or GPU.

Those of matrix products, convolutions and attention are counted, a multiplication and an addition
as two: forward through everything, backward as far as gradients go, layers that are computed again
twice. Spectrograms, normalisations and the optimizer are left out: they need time, but hardly any
of these.
"""

import argparse
import json
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_smop.analysis.shape_step import encode, llm_loss, make_fake, project
from espnet_smop.decoder.prompt import prompt_for
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.model import ESPnetAVSRModel

# An utterance like LRS3's: 433 hours are about 150,000 clips, at 3 words a second. Llama's
# tokenizer makes 1.3 tokens of a word.
SECONDS = 10.0
_WORDS_PER_SECOND = 3
_TOKENS_PER_WORD = 1.3


class TrainingFlops:
    """Counts the operations of training by parts; a part that several models share, once.

    Args:
        seconds: length of the utterances; attention makes longer ones dearer.
        text: tokens of their transcripts; None takes what is usual in LRS3.
    """

    def __init__(self, *, seconds: float = SECONDS, text: int | None = None):
        self.seconds = seconds
        self.text = text or round(seconds * _WORDS_PER_SECOND * _TOKENS_PER_WORD)
        self._known: dict[str, int] = {}

    def per_second(self, args: argparse.Namespace, model: ESPnetAVSRModel) -> float:
        """Count for a second of speech, with its video, forward and backward.

        Args:
            args: that the model was built from.
            model: on the meta device; it cannot be used any more afterwards.
        """
        total = 0
        features = {}
        # The fused kernels of attention are not counted on every device, its plain products are.
        with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
            for modality, frontend in model.frontends.items():
                part = f"{modality}_frontend"
                total += self._once(
                    (part, getattr(args, part), getattr(args, f"{part}_conf")),
                    lambda f=frontend: _encoder_flops(f, self.seconds),
                )
                frames = int(self.seconds * frontend.frame_rate)
                features[modality] = torch.empty(
                    1, frames, frontend.output_size(), requires_grad=frontend.has_lora
                )
            make_fake(model.projector)
            with FlopCounterMode(display=False) as counter:
                media, aux = project(model.projector, features)
                _backward(sum(y.sum() for y in media.values()) + aux)
            total += counter.get_total_flops()
            sizes = {m: y.shape[1] for m, y in media.items()}
            total += self._once(
                ("decoder", args.decoder_conf, sizes),
                lambda: self._llm_flops(model, media),
            )
        return total / self.seconds

    def _once(self, key: object, count: Callable[[], int]) -> int:
        name = json.dumps(key, sort_keys=True)
        if name not in self._known:
            self._known[name] = count()
        return self._known[name]

    def _llm_flops(self, model: ESPnetAVSRModel, media: dict[str, torch.Tensor]) -> int:
        decoder = model.decoder
        make_fake(decoder)
        prompt = prompt_for(tuple(media)) if decoder.prompt is None else decoder.prompt
        tokens = {m: y.detach().requires_grad_() for m, y in media.items()}
        # A skeleton's tokenizer takes each letter for a token.
        around = 1 + round(len(prompt.split()) * _TOKENS_PER_WORD)
        with FlopCounterMode(display=False) as counter:
            _backward(llm_loss(decoder, tokens, self.text, around=around))
        return counter.get_total_flops()


def _encoder_flops(frontend: AbsAVFrontend, seconds: float) -> int:
    make_fake(frontend)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(frontend.has_lora):
        _backward(encode(frontend, 1, seconds).sum())
    return counter.get_total_flops()


def _backward(loss: torch.Tensor) -> None:
    if loss.requires_grad:
        loss.backward()
