"""GGUF files: converted once to safetensors, which transformers loads and saves like any other model."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from keeptune.log import logger
from keeptune.models.guarded import quiet, readable, require_complete
from keeptune.models.wheels import build_once, cache_folder


def gguf_folder(sha256: str) -> Path:
    """The cache folder for the conversion of the GGUF file with this checksum."""
    return cache_folder() / "models" / f"gguf-{sha256}"


def converted_gguf(gguf: Path, sha256: str) -> Path:
    """Convert a GGUF file to a folder of safetensors in the cache, unless its checksum is already there.

    Raises:
        SourceError: the file is damaged, incomplete, or of an architecture that transformers does not know.
    """

    def convert(folder: Path) -> None:
        logger.info(f"converting {gguf.name} to safetensors, once (about 15 s per 100 MB)")
        # transformers draws the bar of this conversion with tqdm directly: no setting turns it off.
        with quiet(), readable(str(gguf)), redirect_stderr(io.StringIO()):
            parent, name = str(gguf.parent), gguf.name
            tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=name, trust_remote_code=False)
            loaded, report = AutoModelForCausalLM.from_pretrained(
                parent, gguf_file=name, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
            )
            require_complete(str(gguf), report)
            # transformers refuses to save the loaded model, because it counts as quantized: copy the weights into a
            # plain model.
            config = loaded.config
            del config.quantization_config
            config._name_or_path = ""
            model = type(loaded)(config)
            model.load_state_dict(loaded.state_dict())
            model.tie_weights()
        with quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    return build_once(gguf_folder(sha256), convert)
