"""A published-form model written from the description of the public code, for tests.

Plain transformers modules, a loop over experts, no masks; its state dict has the public names.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, WhisperFeatureExtractor, WhisperModel

from espnet_smop.frontend.avhubert import AVHuBERTModel

TOKENS = ["<pad>", "<audio>", "</audio>", "<video>", "</video>"]


class TopK(nn.Module):
    def __init__(self, num_experts, top_k, width, hidden, out):
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(width, num_experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out), nn.LayerNorm(out)
            )
            for _ in range(num_experts)
        )

    def forward(self, x):
        """Project (B, T, D); returns also the router's logits (B T, N)."""
        flat = x.flatten(0, 1)
        logits = self.gate(flat)
        weights, chosen = logits.softmax(-1).topk(self.top_k)
        weights = weights / weights.sum(-1, keepdim=True)
        rows = []
        for token, ws, es in zip(flat, weights, chosen.tolist(), strict=True):
            rows.append(sum(w * self.experts[e](token) for w, e in zip(ws, es, strict=True)))
        return torch.stack(rows).unflatten(0, x.shape[:2]), logits


def auxiliary(logits, top_k):
    """Load balancing and z-loss of a router's logits (M, N)."""
    probs = logits.softmax(-1)
    one_hot = F.one_hot(probs.topk(top_k).indices, logits.shape[-1]).float()
    share = one_hot.sum(1).mean(0)
    balance = logits.shape[-1] * (share * probs.mean(0)).sum()
    return balance, torch.logsumexp(logits, -1).square().mean()


def adapt(attention, width, rank, alpha, query, value):
    """Put the public LoRA beside the query and value projections of an attention module."""
    inner = round(width / rank)
    for letter, linear in (("Q", query), ("V", value)):
        down = nn.Linear(width, inner, bias=False)
        up = nn.Linear(inner, linear.out_features, bias=False)
        for layer in (down, up):
            nn.init.normal_(layer.weight, std=0.3)
        setattr(attention, f"lora_down_{letter}", down)
        setattr(attention, f"lora_up_{letter}", up)

        def add(module, args, output, down=down, up=up):
            return output + up(down(args[0])) * (alpha / rank)

        linear.register_forward_hook(add)


class PublicModel(nn.Module):
    """``modality``: audio, video or audiovisual; ``kind``: smop (pooling) or dense (stacking)."""

    def __init__(
        self, *, llm, whisper, avhubert, modality="audiovisual", kind="smop",
        rank=4, alpha=4, num_experts=4, top_k=2, rates=(4, 2), hidden=20, video_rank=None,
    ):  # fmt: skip
        super().__init__()
        self.kind, self.top_k = kind, top_k
        self.rates = dict(zip(("audio", "video"), rates, strict=True))
        self.modalities = ["audio", "video"] if modality == "audiovisual" else [modality]
        self.tokenizer = AutoTokenizer.from_pretrained(llm)
        self.tokenizer.add_special_tokens(
            {"pad_token": TOKENS[0], "additional_special_tokens": TOKENS[1:]}
        )
        self.llm = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32)
        self.llm.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        with torch.no_grad():
            for table in (self.llm.get_input_embeddings(), self.llm.get_output_embeddings()):
                table.weight[-5:] = torch.randn(5, table.weight.shape[1]) * 0.4
        e = self.llm.config.hidden_size
        for layer in self.llm.model.layers:
            attention = layer.self_attn
            adapt(attention, e, rank, alpha, attention.q_proj, attention.v_proj)
        widths = {}
        if "audio" in self.modalities:
            self.audio_encoder = WhisperModel.from_pretrained(whisper, dtype=torch.float32).encoder
            self.extract = WhisperFeatureExtractor(self.audio_encoder.config.num_mel_bins)
            widths["audio"] = self.audio_encoder.config.d_model
        if "video" in self.modalities:
            self.video_encoder = AVHuBERTModel.from_pretrained(avhubert)
            widths["video"] = self.video_encoder.config.encoder_embed_dim
            for module in self.video_encoder.modules():  # drifted in training
                if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                    module.running_mean += torch.randn_like(module.running_mean) * 0.3
                    module.running_var *= torch.rand_like(module.running_var) + 0.5
                    module.num_batches_tracked += 17
            if video_rank:
                for layer in self.video_encoder.encoder.layers:
                    attention = layer.self_attn
                    sizes = (widths["video"], video_rank, 2 * video_rank)
                    adapt(attention, *sizes, attention.q_proj, attention.v_proj)
        if kind == "smop":
            self.audiovisual_proj = TopK(num_experts, top_k, widths["audio"], hidden, e)
        else:
            for m, width in widths.items():
                projector = nn.Sequential(
                    nn.Linear(width * self.rates[m], hidden), nn.ReLU(), nn.Linear(hidden, e)
                )
                setattr(self, f"{m}_proj", projector)
        self.eval()

    def encode(self, speech, lengths, video):
        """Encode padded waveforms (B, N) and videos (B, T, 88, 88), without masks."""
        features = {}
        if "audio" in self.modalities:
            mel = self.extract(list(speech.numpy()), return_tensors="pt", sampling_rate=16000)
            x = self.audio_encoder(mel.input_features).last_hidden_state
            longest = torch.tensor(max(lengths))
            features["audio"] = x[:, : max(int(longest / 16000 * 50), 25)]
        if "video" in self.modalities:
            [features["video"]] = self.video_encoder(video=video)
        return {m: self.reduce(x, self.rates[m]) for m, x in features.items()}

    def reduce(self, x, rate):
        if self.kind == "smop":
            return nn.AvgPool1d(rate)(x.transpose(1, 2)).transpose(1, 2)
        x = x[:, : x.shape[1] - x.shape[1] % rate]
        return x.reshape(len(x), -1, rate * x.shape[2])

    def prefix(self, speech, lengths, video):
        """Embeddings before the text (B, P, E), and the router's logits."""
        reduced = self.encode(speech, lengths, video)
        logits = None
        if self.kind == "smop":
            y, logits = self.audiovisual_proj(torch.cat(list(reduced.values()), dim=1))
            sizes = [x.shape[1] for x in reduced.values()]
            tokens = dict(zip(reduced, y.split(sizes, dim=1), strict=True))
        else:
            tokens = {m: getattr(self, f"{m}_proj")(x) for m, x in reduced.items()}
        vocabulary = self.tokenizer.get_vocab()
        batch = len(next(iter(tokens.values())))

        def embedded(*ids):
            return self.llm.model.embed_tokens(torch.tensor([ids] * batch))

        parts = [embedded(self.tokenizer.bos_token_id)]
        for m, x in tokens.items():
            parts += [embedded(vocabulary[f"<{m}>"]), x, embedded(vocabulary[f"</{m}>"])]
        speech_and_video = {"audio": "speech", "video": "video"}
        what = " and ".join(speech_and_video[m] for m in self.modalities)
        prompt = self.tokenizer(f"Transcribe {what} to text.", add_special_tokens=False).input_ids
        return torch.cat([*parts, embedded(*prompt)], dim=1), logits

    @torch.no_grad()
    def losses(self, speech, lengths, video, texts):
        """Cross-entropy, load balancing, z-loss, number of target tokens, logits of the text."""
        prefix, router = self.prefix(speech, lengths, video)
        eos, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        rows = [[*t, eos] for t in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([r + [pad] * (longest - len(r)) for r in rows])
        labels = ids.masked_fill(ids == pad, -100)
        labels = torch.cat([torch.full(prefix.shape[:2], -100), labels], dim=1)
        inputs = torch.cat([prefix, self.llm.model.embed_tokens(ids)], dim=1)
        out = self.llm(inputs_embeds=inputs, labels=labels)
        balance, z = auxiliary(router, self.top_k) if router is not None else (None, None)
        logits = out.logits[:, prefix.shape[1] - 1 : -1]
        return out.loss, balance, z, sum(map(len, rows)), logits, router

    @torch.no_grad()
    def generate(self, speech, lengths, video, *, beams, max_new_tokens):
        prefix, _ = self.prefix(speech, lengths, video)
        ids = self.llm.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long),
            num_beams=beams,
            max_new_tokens=max_new_tokens,
            do_sample=False, temperature=None, top_p=None, top_k=None, repetition_penalty=1.0,
            eos_token_id=self.tokenizer.eos_token_id,
            bos_token_id=self.tokenizer.bos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        return self.tokenizer.batch_decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
