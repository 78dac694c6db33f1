"""The computed memory of activations, against the tensors that autograd keeps."""

import pytest
import torch

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.experiments.memory import activation_bytes
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.tasks.avsr import AVSRTask


def kept_bytes(module, run):
    """Return the bytes of the tensors that autograd keeps in a run, without the parameters."""
    own = {p.untyped_storage().data_ptr() for p in (*module.parameters(), *module.buffers())}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # alive, so that none is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(size for size, _ in kept.values())


def test_what_the_llm_keeps(make_llm, media):
    decoder = LLMDecoder(make_llm("smollm"), dtype="bfloat16", lora={"r": 4, "alpha": 4})
    tokens, lengths = media([60, 70, 80, 80], decoder.embed_size, modalities=("audio",))
    tokens = {m: t.requires_grad_() for m, t in tokens.items()}
    text = torch.randint(5, 60, (4, 40))
    text_lengths = torch.full((4,), 40)

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            decoder(tokens, lengths, text, text_lengths)

    model = ESPnetAVSRModel.__new__(ESPnetAVSRModel)
    torch.nn.Module.__init__(model)
    model.decoder, model.frontends = decoder, torch.nn.ModuleDict()
    positions = 4 * (80 + 40 + decoder.prompt_length(("audio",)))
    sizes = {"positions": positions, "text": 4 * 41, "frames": 0}
    computed = activation_bytes(model, **sizes, recompute=False)
    # Of 96 tokens, the small vocabulary's gradients are a part that is not kept but made later.
    assert kept_bytes(decoder, step) == pytest.approx(computed, rel=0.25)
    assert activation_bytes(model, **sizes, recompute=True) < computed / 1.5


def test_an_encoder_with_adapters_adds_to_it(model_args):
    def estimate(**conf):
        args = model_args()
        args.video_frontend_conf = {**args.video_frontend_conf, **conf}
        model = AVSRTask.build_skeleton(args)
        return activation_bytes(model, positions=0, text=0, frames=1000, recompute=False)

    assert estimate() == 0
    # 2 layers, width 16: norms and inner layer in float32, four projections in bfloat16, adapters
    assert estimate(lora={"r": 2}) == 1000 * (2 * 24 * 16 + 4 * 2 * (16 + 2))
