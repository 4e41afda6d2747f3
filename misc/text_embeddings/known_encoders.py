"""The encoders that published text features were made with: sizes, and where weights are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from misc.text_embeddings.captions import Captions
    from misc.text_embeddings.job import Job, Settings


# How a Hugging Face encoder makes one vector of a caption, or one for each token.
POOLINGS = ("tokens", "mean", "max", "cls", "last", "sentence")
SPECIAL_TOKENS = ("keep", "drop")


@dataclass(frozen=True)
class KnownEncoder:
    """An encoder that published text features were made with.

    Attributes:
        size: length of its vectors.
        file: where the weights of a table are expected.
        hub: its name on the Hugging Face hub.
        instead: why its name alone is not enough, and what to use.
        make: makes its job from the flags and the captions, where none of the above says how.
    """

    size: int
    file: str | None = None
    hub: str | None = None
    instead: str | None = None
    make: "Callable[[Settings, Captions], Job] | None" = None


# What `--encoder` may name; to add an encoder is to add a row.
KNOWN = {
    "w2v": KnownEncoder(300, "GoogleNews-vectors-negative300.bin.gz"),
    "grovle": KnownEncoder(300, "grovle.zip"),
    "mt_grovle": KnownEncoder(300, "mt_grovle.zip"),
    "hglmm_300d": KnownEncoder(300, "hglmm_300d.zip"),
    "hglmm_6kd": KnownEncoder(6000, "hglmm_6kd.zip"),
    "howto100m_mil_nce": KnownEncoder(512, "howto100m/s3d_howto100m.pth"),
    "openai": KnownEncoder(
        768, instead='they came from a pipeline of their own; "openai-gpt" is the public model'
    ),
    "electra": KnownEncoder(256, hub="google/electra-small-discriminator"),
    "openai-gpt": KnownEncoder(768, hub="openai-community/openai-gpt"),
    "gpt2": KnownEncoder(768, hub="openai-community/gpt2"),
    "gpt2-medium": KnownEncoder(1024, hub="openai-community/gpt2-medium"),
    "gpt2-large": KnownEncoder(1280, hub="openai-community/gpt2-large"),
    "gpt2-xl": KnownEncoder(1600, hub="openai-community/gpt2-xl"),
    "gpt2-xl-finetune": KnownEncoder(
        1600, instead="give the folder of a gpt2-xl that was finetuned, or use gpt2-xl"
    ),
    "bert-base-uncased": KnownEncoder(768, hub="google-bert/bert-base-uncased"),
    "t5-small": KnownEncoder(512, hub="google-t5/t5-small"),
    "t5-base": KnownEncoder(768, hub="google-t5/t5-base"),
    "t5-large": KnownEncoder(1024, hub="google-t5/t5-large"),
    "t5-3b": KnownEncoder(1024, hub="google-t5/t5-3b"),
    "t5-11b": KnownEncoder(1024, hub="google-t5/t5-11b"),
    "albert-base-v2": KnownEncoder(768, hub="albert/albert-base-v2"),
    "albert-large-v2": KnownEncoder(1024, hub="albert/albert-large-v2"),
    "albert-xlarge-v2": KnownEncoder(2048, hub="albert/albert-xlarge-v2"),
    "ctrl": KnownEncoder(1280, hub="Salesforce/ctrl"),
    "roberta-base": KnownEncoder(768, hub="FacebookAI/roberta-base"),
    "roberta-large": KnownEncoder(1024, hub="FacebookAI/roberta-large"),
    "xlnet-base-cased": KnownEncoder(768, hub="xlnet/xlnet-base-cased"),
    "xlnet-large-cased": KnownEncoder(1024, hub="xlnet/xlnet-large-cased"),
    "transfo-xl-wt103": KnownEncoder(
        1024, instead="today's transformers have no Transformer-XL; use another encoder"
    ),
}
