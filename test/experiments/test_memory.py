"""The computed memory of activations, against the tensors that autograd keeps."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.experiments.memory import activation_bytes, frozen_bytes
from espnet_smop.lora import inject_lora
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.view_steps import Views


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


def model_of(decoder, views):
    model = ESPnetAVSRModel.__new__(ESPnetAVSRModel)
    torch.nn.Module.__init__(model)
    model.decoder, model.frontends, model.views = decoder, torch.nn.ModuleDict(), views
    decoder.prepare(views.all)
    return model


@pytest.fixture
def kept(make_llm, media):
    """Return a function that makes a training step, and returns the bytes kept and computed."""

    def kept(views=None, recompute=False, **options):
        decoder = LLMDecoder(make_llm("smollm"), dtype="bfloat16", **options)
        model = model_of(decoder, views or Views({"asr": 1.0}))
        tokens, lengths = media([60, 70, 80, 80], decoder.embed_size)
        tokens = {m: t.requires_grad_() for m, t in tokens.items()}
        text = torch.randint(5, 60, (4, 40))
        text_lengths = torch.full((4,), 40)

        def step():
            with torch.autocast("cpu", torch.bfloat16):
                return [decode(view) for view in model.views.steps[0]]

        def decode(view):
            of_view = ({m: part[m] for m in view.modalities} for part in (tokens, lengths))
            with decoder.active(view):
                return decoder(*of_view, text, text_lengths)

        positions = 0
        for view in model.views.steps[0]:
            media_length = sum(tokens[m].shape[1] for m in view.modalities)
            positions += 4 * (decoder.prompt_length(view.modalities) + media_length + 40)
        sizes = {"positions": positions, "text": 4 * 41, "frames": 0}
        return kept_bytes(decoder, step), activation_bytes(model, **sizes, recompute=recompute)

    return kept


LORA = {"r": 4, "alpha": 4}
RATES = {"audio": (4, 16), "video": (2, 5)}


def test_what_the_llm_keeps(kept):
    # Of 96 tokens, the small vocabulary's gradients are a part that is not kept but made later.
    measured, computed = kept(lora=LORA)
    assert measured == pytest.approx(computed, rel=0.25)
    _, recomputed = kept(lora=LORA, recompute=True)
    assert recomputed < computed / 1.5


def test_each_view_of_a_step_adds_to_it(kept):
    views = Views({"asr": 1.0, "vsr": 1.0, "avsr": 1.0})
    one, three = kept(lora=LORA), kept(views, lora=LORA)
    assert three[0] > 3 * one[0]
    assert three[0] == pytest.approx(three[1], rel=0.25)


@pytest.mark.parametrize("shared", [False, True])
def test_a_view_uses_its_own_adapters_alone(kept, shared):
    views = Views({"asr": 1.0, "vsr": 1.0, "avsr": 1.0})
    lora = {"r": 24, "alpha": 4, "target_modules": ["q_proj", "k_proj", "v_proj", "up_proj"]}
    none = kept(views, lora=None)
    some = kept(views, lora={**lora, "per": "task", "shared": shared})
    more = [after - before for before, after in zip(none, some, strict=True)]
    assert more[0] == pytest.approx(more[1], rel=0.2)


@pytest.mark.parametrize("mome", [{"top_k": 2}, {"top_k": 4, "num_shared": 2, "place": "mhsa"}])
def test_mixtures_of_adapters_add_to_it(kept, mome):
    without = kept(lora=None)
    with_them = kept(lora=None, mome={"num_experts": 6, "bottleneck": 4, **mome})
    more = [after - before for before, after in zip(without, with_them, strict=True)]
    assert more[0] == pytest.approx(more[1], rel=0.2)


def test_the_view_with_most_adapters_counts(kept):
    top_k = {"a4_v2": 1, "a16_v2": 3, "a4_v5": 2, "a16_v5": 1}
    views = Views({"avsr": 1.0}, RATES)
    mome = {"num_experts": 6, "bottleneck": 4}
    _, by_rate = kept(views, mome={**mome, "top_k": top_k})
    _, most = kept(views, mome={**mome, "top_k": 3})
    assert by_rate == most


def test_frozen_weights_in_four_bits():
    """Of Llama 3.1-8B; measured sizes of a small LLM are in ``test_four_bit.py``."""
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.device("meta"):
        llm = LlamaForCausalLM(config).requires_grad_(False)
        inject_lora(llm, {"r": 64, "alpha": 8, "target_modules": ["q_proj", "v_proj"]})
    model = torch.nn.Module()
    model.decoder = torch.nn.Module()
    model.decoder.llm = llm
    assert frozen_bytes(model) == 2 * 8_030_261_248
    assert frozen_bytes(model, quantize="nf4") / 2**30 == pytest.approx(5.31, abs=0.005)


def test_an_encoder_with_adapters_adds_to_it(model_args):
    def estimate(**conf):
        args = model_args()
        args.video_frontend_conf = {**args.video_frontend_conf, **conf}
        model = AVSRTask.build_skeleton(args)
        return activation_bytes(model, positions=0, text=0, frames=1000, recompute=False)

    assert estimate() == 0
    # 2 layers, width 16: norms and inner layer in float32, four projections in bfloat16, adapters
    assert estimate(lora={"r": 2}) == 1000 * (2 * 24 * 16 + 4 * 2 * (16 + 2))
