import math

import pytest
import torch

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.decoder.sink_loss import sink_loss


def test_of_vectors_at_known_angles():
    angles = torch.tensor([[0.0, 0.3, 1.2, 2.0], [0.5, 0.5, 0.1, 9.9]])
    states = torch.stack([angles.cos(), angles.sin()], dim=-1) * torch.tensor([[[3.0]], [[0.2]]])
    others = torch.tensor([[False, True, True, True], [False, True, True, False]])
    differences = [0.3, 1.2, 2.0, 0.0, 0.4]
    expected = sum(math.cos(d) ** 2 for d in differences) / 5
    loss = sink_loss([states, 7 * states], others)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_training_it_is_between_bos_and_all_tokens_before_the_text(
    make_llm, media, checkpointing
):
    options = {"model": make_llm("smollm"), "gradient_checkpointing": checkpointing}
    torch.manual_seed(0)
    plain = LLMDecoder(**options)
    torch.manual_seed(0)
    decoder = LLMDecoder(**options, sink_loss_weight=100.0)
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    text = torch.tensor([[5, 6, 7, 8], [9, -1, -1, -1], [5, 9, 4, -1]])
    text_lengths = torch.tensor([4, 1, 3])
    out = decoder(tokens, lengths, text, text_lengths)
    expected = plain(tokens, lengths, text, text_lengths)
    assert expected.aux_loss == 0.0 and "loss_sink" not in expected.stats
    assert torch.equal(out.loss, expected.loss)

    # Of two layers only the first is an inner one. Utterances one by one, by hand.
    squares = []
    outputs = []
    layer = plain.llm.base_model.layers[0]
    layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    for i, prefix in enumerate(plain._prefixes(tokens, lengths)):
        embeddings = torch.cat([prefix, plain.embed(text[i, : text_lengths[i]])])[None]
        plain.hidden_states(embeddings, torch.ones(embeddings.shape[:2], dtype=torch.long))
        bos, *others = outputs[-1][0, : len(prefix)]
        for h in others:
            squares.append((bos @ h / (bos.norm() * h.norm())) ** 2)
    naive = torch.stack(squares).mean()
    torch.testing.assert_close(out.stats["loss_sink"], naive.detach())
    torch.testing.assert_close(out.aux_loss, 100 * naive)

    tokens_grad = []
    for loss in (out.aux_loss, 100 * naive):
        plain.zero_grad()
        decoder.zero_grad()
        loss.backward()
        model = decoder if loss is out.aux_loss else plain
        tokens_grad.append(model.delimiters.grad.clone())
    assert tokens_grad[0].abs().sum() > 0
    torch.testing.assert_close(tokens_grad[0], tokens_grad[1], atol=1e-4, rtol=1e-3)


def test_a_negative_weight_is_refused(make_llm):
    with pytest.raises(ValueError, match="sink_loss_weight is -1"):
        LLMDecoder(make_llm("smollm"), sink_loss_weight=-1.0)
