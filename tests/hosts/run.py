"""keeptune inside other programs: their own commands on a tiny model on a CPU, each in an environment of its own.

    python tests/hosts/run.py                # every host of hosts.toml, then docs/hosts.md
    python tests/hosts/run.py axolotl vllm   # some

An environment that stands is used again. Runs, with their whole logs, are in .hosts/runs/NAME.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.hosts import elsewhere
from tests.hosts.cases import CASES, ROOT, Case, losses, readings
from tests.hosts.page import write

HOME = ROOT / ".hosts"
TAIL = 14
ENVIRONMENT = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
    "UNSLOTH_DISABLE_STATISTICS": "1",
}


def main() -> None:
    """Run the hosts that are asked for, and write what came out."""
    hosts = tomllib.loads(Path(__file__).with_name("hosts.toml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hosts", nargs="*", metavar="NAME", help=f"of {', '.join(hosts)}; default all")
    parser.add_argument("--torch", default="torch==2.13.0", help="what pip installs as torch")
    parser.add_argument("--environments", type=Path, default=HOME, help="folder of the virtual environments")
    arguments = parser.parse_args()
    asked = arguments.hosts or list(hosts)
    if unknown := set(asked) - set(hosts):
        parser.error(f"no host is called {', '.join(sorted(unknown))}")
    passed = True
    for name in asked:
        binaries = environment(name, hosts[name], arguments.torch, arguments.environments)
        found = elsewhere.read(name, binaries, HOME) if hosts[name].get("reads_only") else run_host(name, binaries)
        results = elsewhere.read_results()
        results[name] = {
            "why": hosts[name]["why"],
            "gpu": hosts[name]["gpu"],
            "versions": versions(binaries),
            "date": datetime.now(UTC).date().isoformat(),
            "cases": found,
        }
        print(f"{name}: {sum(case['passed'] for case in found)} of {len(found)} passed", flush=True)
        write({host: results[host] for host in hosts if host in results})
        passed = passed and all(case["passed"] for case in found)
    sys.exit(not passed)


def environment(name: str, host: dict[str, Any], torch: str, home: Path) -> Path:
    """The bin folder of the host's environment, which is made anew where its table has changed."""
    folder = home / name
    binaries, mark = folder / "bin", folder / "made_from.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == host:
        return binaries
    print(f"{name}: installing", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(binaries / "python"), "-m", "pip"]
    install = [*pip, "install", "--quiet", "--disable-pip-version-check"]
    alone, ours = host.get("alone", []), ["--editable", str(ROOT)]
    if alone:
        subprocess.run([*install, "--no-deps", "--ignore-requires-python", *alone], check=True)
    if host.get("below_our_floors"):
        subprocess.run([*install, "--no-deps", *ours], check=True)
    with_requirements = [] if host.get("below_our_floors") or host.get("reads_only") else ours
    subprocess.run([*install, *with_requirements, torch, *host["pins"]], check=True)
    if host.get("uninstall"):
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *host["uninstall"]], check=True)
    for pattern in host.get("remove", []):
        for file in (folder / "lib").glob(f"python3*/site-packages/{pattern}"):
            file.unlink()
    mark.write_text(json.dumps(host), encoding="utf-8")
    return binaries


def run_host(name: str, binaries: Path) -> list[dict[str, Any]]:
    """All cases of a host that trains."""
    work = HOME / "runs" / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    fixture = [str(binaries / "python"), str(ROOT / "tests/hosts/fixture.py"), str(work)]
    subprocess.run(fixture, check=True, env={**os.environ, **ENVIRONMENT}, capture_output=True)
    outs = {case.name: work / f"run-{index}" for index, case in enumerate(CASES[name])}
    return [run_case(case, outs, binaries, work) for case in CASES[name]]


def run_case(case: Case, outs: dict[str, Path], binaries: Path, work: Path) -> dict[str, Any]:
    """Run one case; what it must show is checked here, and why it does not is kept."""
    out = outs[case.name]
    command = case.command(binaries, work, out)
    settings = {"KEEPTUNE_SETTINGS": str(out.with_suffix(".toml"))} if out.with_suffix(".toml").is_file() else {}
    done = subprocess.run(
        command,
        cwd=work,
        env={**os.environ, **ENVIRONMENT, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    out.with_suffix(".log").write_text(done.stdout, encoding="utf-8")
    fault = fault_of(case, done, outs)
    print(f"  {case.name}: {fault or 'ok'}", flush=True)
    return {
        "case": case.name,
        "shows": case.shows,
        "command": plain(" ".join(command), binaries, work),
        "passed": fault is None,
        "fault": fault,
        "losses": losses(out),
        "readings": readings(out),
        "log": tail(done.stdout, binaries, work),
    }


def fault_of(case: Case, done: subprocess.CompletedProcess[str], outs: dict[str, Path]) -> str | None:
    """What is not as it must be; None where all is."""
    out = outs[case.name]
    if case.refused is not None:
        told = " ".join(done.stdout.split())
        return None if done.returncode and case.refused in told else f"not refused with the words {case.refused!r}"
    if done.returncode:
        return f"exit code {done.returncode}"
    if missing := [file for file in case.writes if not (out / file).is_file()]:
        return f"{', '.join(missing)} is missing"
    if not losses(out):
        return "no training losses"
    if case.same_losses_as and losses(out) != losses(outs[case.same_losses_as]):
        return f"the losses are not those of {case.same_losses_as}"
    rows = readings(out)
    if case.name != "plain" and not (rows and rows[0]["KL"] < 1e-3 < rows[-1]["KL"]):
        return "no readings, or none that begin at the base"
    if case.drifts_less_than and not rows[-1]["KL"] < 0.8 * readings(outs[case.drifts_less_than])[-1]["KL"]:
        return f"drifts as far as {case.drifts_less_than}"
    return None


def tail(log: str, binaries: Path, work: Path) -> list[str]:
    """The last lines of a log, without progress bars, colours and paths of this machine."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", log)
    text = re.sub(r"(Train:|Val:)?\s*\d+%\|[^\n\r{\[]*\[[^\]\n\r]*\]", "\n", text)
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    shown = [plain(line, binaries, work)[:400] for line in lines if line and "shards:" not in line]
    return shown[-TAIL:]


def plain(text: str, binaries: Path, work: Path) -> str:
    """Without the paths of this machine."""
    site = re.sub(r"\S*/site-packages/", "", text)
    return site.replace(str(work), "WORK").replace(f"{binaries}/", "").replace(f"{ROOT}/", "")


def versions(binaries: Path) -> dict[str, str]:
    """The versions that decide: of the host, of Python, and of the libraries beneath."""
    names = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
    code = (
        "import json, platform\nfrom importlib.metadata import version, PackageNotFoundError\nfound = "
        "{'Python': platform.python_version()}\n"
        f"for name in {names!r}:\n    try: found[name] = version(name)\n    except PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([str(binaries / "python"), "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
