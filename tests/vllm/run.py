"""`make vllm-tests`: text that the real vLLM writes on a CPU beside the torch engine's, and pools whose vLLM is killed.

    python -m tests.vllm.run [--trials 20]        # writes docs/vllm.json; resumes; about half an hour on two cores

vLLM has an environment of its own, that of `make hosts` (tests/hosts/hosts.toml). The bounds are set here. No test may
tell the rows of the two engines apart at p = .01, and the same tests must tell rows of temperature .9 from them. Every
pool whose vLLM was killed goes on, writes no shard twice, and ends as the pool that was left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import tomllib
from pathlib import Path

from keeptune.storage import write_json
from keeptune.system import provenance
from tests.hosts.run import HOME, ROOT, environment
from tests.vllm.compare import BOUND, compare, passes
from tests.vllm.kills import make_base, trial, undisturbed

RESULT = ROOT / "docs" / "vllm.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--python", help="of an environment with vLLM; by default one is made")
    arguments = parser.parse_args()
    # One thread for each engine; vLLM would take all cores.
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    hosts = tomllib.loads((ROOT / "tests" / "hosts" / "hosts.toml").read_text(encoding="utf-8"))
    python = arguments.python or str(environment("vllm", hosts["vllm"], "torch==2.13.0", HOME) / "python")
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"killed": []}
    if "compared" not in found:
        found |= provenance(0) | {"vllm": hosts["vllm"]["pins"][0], "bound_p": BOUND, "compared": compare(python)}
        write_json(RESULT, found)
        print(json.dumps(found["compared"], indent=1), flush=True)
    killed = found["killed"]
    if len(killed) < arguments.trials:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            base = make_base(work / "base")
            expected = undisturbed(base, python, work / "alone")
            for number in range(len(killed), arguments.trials):
                killed.append(trial(number, base, python, expected, work))
                write_json(RESULT, found)
                print(json.dumps(killed[-1]), flush=True)
    gone_on = sum(row["same_bytes"] and not row["written_again"] for row in killed)
    print(f"{gone_on} of {len(killed)} killed pools went on to the same pool")
    sys.exit(not (passes(found["compared"]) and gone_on == len(killed)))


if __name__ == "__main__":
    main()
