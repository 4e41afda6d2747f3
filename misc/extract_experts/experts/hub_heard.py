"""Speech by a Whisper of transformers."""

from collections.abc import Sequence

import torch

from misc.extract_experts.expert import Chunk, Loaded, Seen, Settings, Sound, Words
from misc.extract_experts.experts.networks import precision, ready, weights_hash
from misc.extract_experts.experts.packages import version
from misc.extract_experts.experts.transformer import load_transformer, reader_of
from misc.extract_experts.experts.wheels_heard import is_silent

_SECONDS = 30.0  # what Whisper reads at a time
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
        return [Seen(None, () if is_silent(c.values) else said(c)) for c in chunks]

    def said(chunk: Chunk) -> tuple[Words, ...]:
        mel = reader(chunk.values, sampling_rate=Sound.RATE, return_tensors="pt")
        with torch.inference_mode():
            ids = network.generate(
                mel["input_features"].to(settings.device, precision(settings)),
                return_timestamps=True,
                no_speech_threshold=_NO_SPEECH,
                logprob_threshold=_LIKELY,
                temperature=(0.0,),
                do_sample=False,
            )
        start, end = float(chunk.times[0]), len(chunk.values) / Sound.RATE
        told = tokens.decode(ids[0], skip_special_tokens=True, output_offsets=True)
        pieces = told["offsets"] or [{"text": told["text"], "timestamp": (0.0, end)}]
        return tuple(
            Words(piece["text"].strip(), start + first, start + min(last, end))
            for piece in pieces
            for first, last in [piece["timestamp"]]
            if piece["text"].strip()
        )

    return Loaded(function, Sound(_SECONDS), 0, record)
