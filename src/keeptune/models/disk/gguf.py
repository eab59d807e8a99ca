"""GGUF files, converted to safetensors once and kept in the cache."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from keeptune.log import logger
from keeptune.models.disk.saving import save_model
from keeptune.models.disk.wheels import build_once, cache_folder
from keeptune.models.guarded import quiet, readable, require_complete

# Raised where what is saved changes, so that no folder of an earlier version is used. 2: transformers 4 reads it too.
_FORM = 2


def gguf_folder(sha256: str) -> Path:
    """Where the safetensors of the GGUF file with this checksum are kept."""
    return cache_folder() / "models" / f"gguf-{_FORM}-{sha256}"


def converted_gguf(gguf: Path, sha256: str) -> str:
    """The cache folder with a GGUF file's safetensors, which transformers treats like any model, converted once."""

    def convert(folder: Path) -> None:
        logger.info(f"converting {gguf.name} to safetensors, once (about 15 s per 100 MB)")
        parent, file = str(gguf.parent), gguf.name
        # transformers draws the bar of this conversion with tqdm directly: no setting turns it off.
        with quiet(), readable(str(gguf)), redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=file, trust_remote_code=False)
            loaded, report = AutoModelForCausalLM.from_pretrained(
                parent, gguf_file=file, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
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
            save_model(model, tokenizer, folder)

    return str(build_once(gguf_folder(sha256), convert))
