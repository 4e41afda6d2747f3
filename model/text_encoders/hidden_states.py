"""The hidden states of a transformer. B captions, T tokens of each, D size."""

import torch
from torch import Tensor, nn


class HiddenStates(nn.Module):
    """Gives the hidden states of one layer: ids (B, T) -> (B, T, D).

    Args:
        network: a Hugging Face network without a head; of an encoder-decoder the encoder.
        layer: an index into its hidden states: 0 the embeddings, 1 the first layer, -1 the last
            one with its final normalisation.

    Raises:
        IndexError: by `forward`: there is no such layer.
    """

    def __init__(self, network: nn.Module, layer: int = -1) -> None:
        super().__init__()
        self.network = network
        self.layer = layer

    def forward(self, ids_BT: Tensor) -> Tensor:
        # All captions of a batch have one length, so that no token is masked.
        output = self.network(
            input_ids=ids_BT,
            attention_mask=torch.ones_like(ids_BT),
            output_hidden_states=self.layer != -1,
            return_dict=True,
        )
        return output.last_hidden_state if self.layer == -1 else output.hidden_states[self.layer]
