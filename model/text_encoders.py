"""Text encoders: hidden states of networks, tables of word vectors, and pooling."""

import torch
from torch import Tensor, nn
from torch.nn import functional


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


class WordTable(nn.Module):
    """Looks words up: ids (B, T) -> (B, T, D).

    Args:
        values: (words, D) float32.
    """

    values: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.values[ids_BT]


class MilNceText(nn.Module):
    """The text branch of the S3D network that MIL-NCE trained on HowTo100M.

    Words are looked up, go through a linear layer and a ReLU, their maximum through a second
    linear layer (Miech et al., End-to-End Learning of Visual Representations from Uncurated
    Instructional Videos, CVPR 2020, section 3.3).

    Args:
        words, word_size: shape of the word embedding.
        hidden: size between the linear layers.
        size: D.
        per_word: give each word its own vector, as if it stood alone, instead of the caption one.
    """

    def __init__(
        self, words: int, word_size: int, hidden: int, size: int, per_word: bool = False
    ) -> None:
        super().__init__()
        self.word_embd = nn.Embedding(words, word_size)
        self.fc1 = nn.Linear(word_size, hidden)
        self.fc2 = nn.Linear(hidden, size)
        self.per_word = per_word

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Return (B, 1, D), or (B, T, D) if `per_word`."""
        x_BTH = functional.relu(self.fc1(self.word_embd(ids_BT)))
        if not self.per_word:
            x_BTH = torch.amax(x_BTH, dim=1, keepdim=True)  # (B, 1, hidden)
        return self.fc2(x_BTH)


POOLINGS = ("tokens", "mean", "max")


def pool(x_BTD: Tensor, keep_BT: Tensor, pooling: str, normalise: bool = False) -> Tensor:
    """Return the kept tokens' vectors under one another, or one vector for each caption.

    Args:
        x_BTD: vectors of all tokens.
        keep_BT: bool, the tokens that count; at least one of each caption.
        pooling: "tokens": (kept tokens, D), caption after caption; "mean" or "max" over the kept
            tokens of a caption: (B, D).
        normalise: scale every vector to length 1.
    """
    if pooling == "tokens":
        rows = x_BTD[keep_BT]
    elif pooling == "mean":
        weights_BT1 = keep_BT.unsqueeze(-1).to(x_BTD.dtype)
        rows = (x_BTD * weights_BT1).sum(dim=1) / weights_BT1.sum(dim=1)
    else:
        rows = x_BTD.masked_fill(~keep_BT.unsqueeze(-1), float("-inf")).amax(dim=1)
    return functional.normalize(rows, dim=-1) if normalise else rows
