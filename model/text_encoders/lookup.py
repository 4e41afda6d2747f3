"""Encoders whose words are rows of a table. B captions, T words of each, D size."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class WordTable(nn.Module):
    """Looks words up: ids (B, T) -> (B, T, D).

    Args:
        values: (words, D) float32.
    """

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
