"""Speech by a Whisper of transformers."""

from collections.abc import Sequence

import torch

from misc.extract_experts.expert import Chunk, Loaded, Seen, Settings, Sound, Words
from misc.extract_experts.experts.networks import precision, ready, weights_hash
from misc.extract_experts.experts.packages import version
from misc.extract_experts.experts.transformer import load_transformer, reader_of
from misc.extract_experts.experts.wheels_heard import is_silent

_SECONDS = 30.0  # what Whisper reads at a time
_CHUNKS = 8  # in one batch on a GPU
# As Whisper's own program decides that a piece has no speech.
_NO_SPEECH, _LIKELY = 0.6, -1.0


def whisper(settings: Settings) -> Loaded:
    """Whisper (Radford et al. 2022) of transformers: what is said, phrase by phrase."""
    network, folder = load_transformer("WhisperForConditionalGeneration", "whisper", settings)
    reader = reader_of("WhisperFeatureExtractor", folder, "whisper")
    tokens = reader_of("WhisperTokenizer", folder, "whisper")
    record = {
        "model": f"transformers {settings.model}",
        "version": version("transformers"),
        "weights": weights_hash(network),
    }
    network = ready(network, settings)

    def function(chunks: Sequence[Chunk]) -> list[Seen]:
        heard = [chunk for chunk in chunks if not is_silent(chunk.values)]
        rows = iter(generate(heard) if heard else ())
        return [Seen() if is_silent(c.values) else Seen(None, said(c, next(rows))) for c in chunks]

    def generate(chunks: Sequence[Chunk]) -> torch.Tensor:
        sounds = [chunk.values for chunk in chunks]
        mel = reader(sounds, sampling_rate=Sound.RATE, return_tensors="pt")["input_features"]
        with torch.inference_mode():
            return network.generate(
                mel.to(settings.device, precision(settings)),
                return_timestamps=True,
                no_speech_threshold=_NO_SPEECH,
                logprob_threshold=_LIKELY,
                temperature=(0.0,),
                do_sample=False,
            )

    def said(chunk: Chunk, ids: torch.Tensor) -> tuple[Words, ...]:
        start, end = float(chunk.times[0]), len(chunk.values) / Sound.RATE
        told = tokens.decode(ids.tolist(), skip_special_tokens=True, output_offsets=True)
        pieces = told["offsets"] or [{"text": told["text"], "timestamp": (0.0, end)}]
        return tuple(
            Words(piece["text"].strip(), start + first, start + min(last, end))
            for piece in pieces
            for first, last in [piece["timestamp"]]
            if piece["text"].strip()
        )

    return Loaded(function, Sound(_SECONDS), 0, record, _CHUNKS)
