"""The engine in vLLM: token ids in, token ids out, in a process and an environment of its own.

vLLM and training pin different versions of torch and transformers, so they never share a process. vLLM only writes the
tokens: the base's predictions on them are computed by the training stack, in one forward pass.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError, PoolError
from keeptune.log import logger
from keeptune.models.adapters import causal_model
from keeptune.models.quantized import is_quantized
from keeptune.replay.openings import OpeningIds
from keeptune.system import free_bytes

WORKER = Path(__file__).with_name("vllm_worker.py")
PYTHON = "KEEPTUNE_VLLM_PYTHON"
"""Environment variable that names the python of an environment with vLLM."""
_MOST_ROWS = 1024
_POLL_SECONDS = 0.05
_LOG_LINES = 12
# Part of the GPU's free memory that vLLM may take: the base stands beside it.
_MEMORY_SHARE = 0.8
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_FIX = (
    "make an environment for vLLM (python -m venv v; v/bin/pip install vllm) and name its python: "
    f"--vllm-python v/bin/python, or {PYTHON}=v/bin/python"
)


@dataclass(frozen=True, kw_only=True)
class VLLM:
    """Makes vLLM engines: `sample_pool(engine=VLLM(python="v/bin/python"))`, or `engine="vllm"`."""

    name = "vllm"
    python: str | None = None
    """The python of an environment with vLLM; by default that of `KEEPTUNE_VLLM_PYTHON`, the present one, or uv's."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Further arguments of `vllm.LLM`, such as `tensor_parallel_size` for a base that fits no single GPU."""

    def __call__(
        self, model: nn.Module, *, dtype: torch.dtype, rows: int, temperature: float, on_token: Callable[[int], None]
    ) -> VLLMEngine:
        """The engine."""
        return VLLMEngine(
            model,
            dtype=dtype,
            rows=rows,
            temperature=temperature,
            on_token=on_token,
            python=self.python,
            options=self.options,
        )

    def rows_that_fit(self, model: nn.Module, length: int, dtype: torch.dtype) -> int:
        """Rows whose hidden states fit half of the free memory; vLLM itself queues what does not fit its cache."""
        stored = 2 * causal_model(model).config.get_text_config().hidden_size * length * dtype.itemsize
        return int(max(1, min(free_bytes("cpu") // 2 // stored, _MOST_ROWS)))


class VLLMEngine:
    """Ancestral sampling by vLLM. The process starts at the first call and ends with this object.

    vLLM reads the checkpoint that the model was loaded from, or a copy of the weights where there is none that it can
    read. Each row has a seed of its own. vLLM promises equal rows for equal seeds only where batches are the same.
    """

    name = "vllm"

    def __init__(
        self,
        model: nn.Module,
        *,
        dtype: torch.dtype | None = None,
        rows: int = 256,
        temperature: float = 1.0,
        on_token: Callable[[int], None] | None = None,
        python: str | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        """Raise `ConfigError` for a quantized base, or where no vLLM is found."""
        causal = causal_model(model)
        if is_quantized(causal):
            raise ConfigError(
                "vLLM would sample from the base as it was before it was quantized",
                "sample with --engine torch, which reads the quantized weights",
            )
        self.model, self.dtype = causal, dtype or causal.dtype
        self.rows, self.temperature, self.on_token = rows, temperature, on_token
        self.command, self.options = _command(python), options or {}
        self._requests, self._longest = 0, 0
        self._process: subprocess.Popen[str] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="keeptune-vllm-"))
        self._cleanup = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def sample(self, rows: int, length: int, opening: OpeningIds, seed: int) -> Tensor:
        """See `Engine.sample`.

        Raises:
            PoolError: vLLM ended, with the end of its log.
        """
        opening_BG = torch.tensor(opening).expand(rows, -1)
        self._start(opening_BG.shape[1] + length)
        generator = torch.Generator().manual_seed(seed)
        request = {
            "number": self._requests,
            "openings": opening_BG.tolist(),
            "length": length,
            "temperature": self.temperature,
            "seeds": torch.randint(2**31, (rows,), generator=generator).tolist(),
        }
        self._ask(request)
        reply = self._folder / f"rows-{self._requests}.npy"
        self._wait_for(reply)
        written = torch.from_numpy(np.load(reply, allow_pickle=False)).long()
        reply.unlink()
        self._requests += 1
        if self.on_token is not None:
            self.on_token(rows * length)
        if written.shape != (rows, length):
            raise PoolError(f"vLLM wrote rows of {list(written.shape)}, not {[rows, length]}", "see its version")
        return torch.cat([opening_BG, written], dim=1)

    def slow_down(self) -> bool:
        """There is no slower form."""
        return False

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _start(self, longest: int) -> None:
        """Have a process that reads rows of `longest` tokens."""
        if self._process is not None and longest <= self._longest:
            return
        self.close()
        self._longest = longest
        (self._folder / "ready").unlink(missing_ok=True)
        llm = {
            "model": self._checkpoint(),
            "dtype": str(self.dtype).removeprefix("torch."),
            "max_model_len": longest,
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            **_memory(),
            **self.options,
        }
        logger.info(f"starting vLLM: {' '.join(self.command)}")
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [*self.command, str(WORKER), json.dumps({"folder": str(self._folder), "llm": llm})],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                # Ctrl-C ends the shard in hand here first, and then vLLM by the end of its input.
                start_new_session=True,
                env=_environment(),
            )
        weakref.finalize(self, _end, self._process)
        self._wait_for(self._folder / "ready")

    def _checkpoint(self) -> str:
        """A folder or hub id that vLLM can read, with the model's own weights."""
        named = str(getattr(self.model, "name_or_path", ""))
        if (
            any(Path(named).glob("*.safetensors"))
            if Path(named).is_dir()
            else "/" in named and not Path(named).exists()
        ):
            return named
        copy = self._folder / "model"
        if not copy.is_dir():
            self.model.save_pretrained(copy)
        return str(copy)

    def _ask(self, request: Mapping[str, object]) -> None:
        process = self._running()
        if process.stdin is None:
            raise self._ended(process)
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended(process) from error

    def _wait_for(self, file: Path) -> None:
        while not file.exists():
            process = self._running()
            if process.poll() is not None and not file.exists():
                raise self._ended(process)
            time.sleep(_POLL_SECONDS)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("vLLM was not started")
        return self._process

    def _ended(self, process: subprocess.Popen[str]) -> PoolError:
        code = process.wait()
        self._process = None
        lines = (self._folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        logger.error("the end of vLLM's log:\n" + "\n".join(lines[-_LOG_LINES:]))
        said = next((line for line in reversed(lines) if line.strip()), "it wrote no log")
        return PoolError(f"vLLM ended with code {code}: {said}", "mend its environment, or sample with --engine torch")


def _command(python: str | None) -> list[str]:
    """What runs the worker: the named python, this one where it has vLLM, or uv.

    Raises:
        ConfigError: none of them is there.
    """
    named = python or os.environ.get(PYTHON)
    if named:
        found = shutil.which(named)
        if found is None:
            raise ConfigError(f"there is no python {named}", _FIX)
        return [found]
    if find_spec("vllm"):
        return [sys.executable]
    if uv := shutil.which("uv"):
        return [uv, "run", "--script"]
    raise ConfigError("vLLM is not installed here, and neither is uv, which could fetch it", _FIX)


def _environment() -> dict[str, str]:
    """Nothing of this environment's packages, nor of the worker's folder, may shadow those of vLLM's.

    Of several processes each has an engine of its own, on its own GPU, which must not join their group.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", *_LAUNCHED)}
    if rank := os.environ.get("LOCAL_RANK"):
        visible = [device for device in kept.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
        kept["CUDA_VISIBLE_DEVICES"] = visible[int(rank)] if int(rank) < len(visible) else rank
    return {**kept, "PYTHONSAFEPATH": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}


def _memory() -> Mapping[str, float]:
    """What vLLM may take of the GPU, where there is one; the base stands there already."""
    if not torch.cuda.is_available():
        return {"enforce_eager": True}
    free, whole = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": round(_MEMORY_SHARE * free / whole, 3)}


def _end(process: subprocess.Popen[str]) -> None:
    """End vLLM by the end of its input, or by force."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
