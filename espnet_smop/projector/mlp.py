"""The dense baseline: one MLP per modality, as in Llama-AVSR."""

from espnet_smop.projector.smop import SMoPProjector
from espnet_smop.projector.stem import DOWNSAMPLE_DEFAULTS


class MLPProjector(SMoPProjector):
    """A SMoP with one expert per modality and therefore no routers: Linear → ReLU → Linear.

    With fusion these are the paper's DCI and MM-Fuser baselines.

    Args:
        input_sizes: modality → width of the encoder's features.
        output_size: width E of the LLM's embeddings.
        num_layers: modality → number of encoder layers.
        hidden_size: width of the hidden layer.
        layer_norm: end with a LayerNorm.
        downsample: see ``Stem``; a partial dictionary is completed with the defaults.
        per_rate: an MLP for each rate of each modality; by default one for all rates.
        fusion: see ``Stem``.
        dropout: on the inputs of the MLPs.
    """

    def __init__(
        self,
        input_sizes: dict[str, int],
        output_size: int,
        num_layers: dict[str, int],
        *,
        hidden_size: int = 2048,
        layer_norm: bool = False,
        downsample: dict | None = DOWNSAMPLE_DEFAULTS,
        per_rate: bool = False,
        fusion: dict | None = None,
        dropout: float = 0.0,
    ):
        super().__init__(
            input_sizes,
            output_size,
            num_layers,
            num_experts=1,
            hidden_size=hidden_size,
            expert_layer_norm=layer_norm,
            downsample=downsample,
            per_rate=per_rate,
            fusion=fusion,
            dropout=dropout,
        )
