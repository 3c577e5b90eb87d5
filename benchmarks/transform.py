"""Measures the transform's speed and memory on synthetic rows in Criteo's format.

    python benchmarks/transform.py                    # local, Beam, DuckDB and Polars
    python benchmarks/transform.py --scale            # 1, 5 and 20 million rows; 30 million distinct values
    python benchmarks/transform.py --analyzer-cache   # ten files, nine of them analyzed before

Each measurement runs in a fresh process, so that its peak of resident memory (`ru_maxrss`) is its own and nothing is
compiled or cached by an earlier one. Imports are done before the clock starts. The rows' files are read once before, so
that all measurements read them from the page cache.
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

ENGINES = ("local", "beam", "duckdb", "polars")


def measure(function: str, *args: object, environment: dict[str, str] | None = None) -> tuple[object, float, float]:
    """Calls `module:function` of `transforms` in a fresh process.

    Returns:
        The function's result, the process's peak memory in GiB, and the function's CPU seconds.
    """
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_run, args=(function, args, environment or {}, queue))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"{function} ended with exit code {process.exitcode}")
    return queue.get()


def _run(function: str, args: tuple, environment: dict[str, str], queue: multiprocessing.SimpleQueue) -> None:
    os.environ.update(environment)
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(f"transforms.{module}"), name)
    before = time.process_time()
    result = call(*args)
    queue.put((result, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, time.process_time() - before))


def once(engine: str, examples: Path, out: Path, threads: int) -> dict:
    """Returns the seconds of one run by phase, their sum and the CPU seconds, and the peak memory in GiB."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    environment = {"POLARS_MAX_THREADS": str(threads)}
    seconds, peak, cpu = measure(f"by_{engine}:run", examples, out, threads, environment=environment)
    return {"seconds": seconds | {"total": sum(seconds.values()), "cpu": cpu}, "peak_gib": peak}


def medians(runs: list[dict]) -> dict:
    """Returns the medians of the seconds, and the largest peak."""
    seconds = {phase: statistics.median(run["seconds"][phase] for run in runs) for phase in runs[0]["seconds"]}
    return {"repeats": len(runs), "seconds": seconds, "peak_gib": max(run["peak_gib"] for run in runs)}


def side_by_side(args: argparse.Namespace, work: Path) -> list[dict]:
    """Runs all engines on the same rows, in turns, and compares the results of each with those of the local engine.

    Turns make a slow period of the machine affect all engines.
    """
    results = []
    for rows in args.rows:
        examples = prepared(work, rows)
        # One thread for Beam's runner: more processes are hardly faster and take twice the memory.
        contenders = [
            (engine, threads)
            for engine in ENGINES
            if engine in args.engines
            for threads in ([1] if engine == "beam" else sorted(args.threads, reverse=True))
        ]
        runs: dict[tuple[str, int], list[dict]] = {contender: [] for contender in contenders}
        agrees: dict[str, dict] = {}
        for _ in range(args.repeats):
            for engine, threads in contenders:
                out = work / f"made-{engine}"
                run = once(engine, examples, out, threads)
                runs[engine, threads].append(run)
                # A whole comparison takes an hour or more; each line is printed at once in case it is cut off.
                print(f"{rows:,} rows, {_name(engine, threads)}: {run['seconds']['total']:.2f} s", flush=True)
                if engine != "local" and engine not in agrees and "local" in args.engines:
                    agrees[engine] = measure("agree:compare", engine, out, work / "made-local")[0]
        print(
            f"\n{rows:,} rows                       analyze describe transform    total      CPU"
            "   times local   peak GiB"
        )
        local = None
        for engine, threads in contenders:
            result = {"rows": rows, "engine": engine, "threads": threads} | medians(runs[engine, threads])
            local = local or (result if engine == "local" else None)
            results.append(result | {"agrees": agrees.get(engine)})
            _print(result, local)
    return results


def _name(engine: str, threads: int) -> str:
    return f"{engine}, {threads} thread{'s' * (threads > 1)}"


def _print(result: dict, local: dict | None) -> None:
    seconds = result["seconds"]
    ratio = seconds["total"] / local["seconds"]["total"] if local else float("nan")
    name = f"{_name(result['engine'], result['threads'])}, {result['repeats']} times"
    phases = (seconds["analyze"], seconds.get("describe", 0.0), seconds["transform"])
    phases += (seconds["total"], seconds["cpu"])
    print(
        f"  {name:<28}", "".join(f"{x:9.2f}" for x in phases), f"{ratio:13.2f} {result['peak_gib']:10.2f}", flush=True
    )


def scale(args: argparse.Namespace, work: Path) -> list[dict]:
    """Measures the local engine by number of rows, and with a vocabulary of 30 million values."""
    threads = max(args.threads)
    runs: dict[int, list[dict]] = {rows: [] for rows in args.scale_rows}
    for _ in range(args.repeats):
        for rows in args.scale_rows:
            runs[rows].append(once("local", prepared(work, rows), work / "made-local", threads))
    results = [{"rows": rows} | medians(measured) for rows, measured in runs.items()]
    for result in results:
        print(f"{result['rows']:>11,} rows: {result['seconds']['total']:7.2f} s, peak {result['peak_gib']:.2f} GiB")
    for first, second, last in zip(results, results[1:], results[2:], strict=False):
        at = [r["rows"] for r in (first, second, last)]
        seconds = [r["seconds"]["total"] for r in (first, second, last)]
        line = np.polyfit(at[:2], seconds[:2], 1)
        deviation = seconds[2] / np.polyval(line, at[2]) - 1
        print(f"{last['rows']:,} rows take {deviation:+.1%} compared with the line through the two before")
    result, *_ = measure("wide:write", work / "wide", args.wide_rows, args.wide_values)
    print(f"{args.wide_rows:,} rows with {result:,} distinct strings", flush=True)
    for phase in ("analyze", "transform"):
        seconds, peak, _ = measure(f"wide:{phase}", work / "wide", work / "made-wide", threads)
        print(f"  {phase}: {seconds:.1f} s, peak {peak:.2f} GiB", flush=True)
        results.append({"rows": args.wide_rows, "distinct": result, "phase": phase, "seconds": seconds, "peak": peak})
    measure("wide:check", work / "made-wide", args.wide_rows, args.wide_values)
    print("  the vocabulary and the ids are right")
    return results


def analyzer_cache(args: argparse.Namespace, work: Path) -> list[dict]:
    """Measures the analysis of ten files with an empty analyzer cache, and with nine of them cached."""
    threads, results = max(args.threads), []
    ten, nine = work / f"ten-{args.file_rows}", work / f"nine-{args.file_rows}"
    measure("daily:write", ten, nine, args.file_rows)
    for _ in range(args.repeats):
        shutil.rmtree(work / "analyzer-cache", ignore_errors=True)
        made, kept = work / "analyzer-cache" / "made", work / "analyzer-cache" / "kept"
        seconds = {}
        for name, examples, cache in (("all new", ten, None), ("nine", nine, kept), ("one new", ten, kept)):
            seconds[name], *_ = measure("daily:analyze", examples, made / name, threads, cache)
        if changed := differing(made / "all new", made / "one new"):
            raise SystemExit(f"the artifacts differ: {', '.join(changed)}")
        results.append(seconds)
        print("  ".join(f"{name} {value:.2f} s" for name, value in seconds.items()), flush=True)
    whole, daily = (statistics.median(r[name] for r in results) for name in ("all new", "one new"))
    print(f"medians: {daily:.2f} of {whole:.2f} s, {daily / whole:.0%}; the artifacts are equal byte by byte")
    return results


def differing(one: Path, other: Path) -> list[str]:
    """Returns the names of files that differ in their bytes or are in only one of the folders."""
    names = {p.relative_to(folder) for folder in (one, other) for p in folder.rglob("*") if p.is_file()}
    _, mismatch, errors = filecmp.cmpfiles(one, other, names, shallow=False)
    return sorted(map(str, mismatch + errors))


def prepared(work: Path, rows: int) -> Path:
    """Returns the folder of the rows. Writes them if it does not exist, and reads them once."""
    folder = work / f"rows-{rows}"
    measure("work:write_rows", folder, rows)
    for path in folder.rglob("*.parquet"):
        path.read_bytes()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000, 5_000_000])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--scale-rows", type=int, nargs="+", default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--wide-rows", type=int, default=60_000_000)
    parser.add_argument("--wide-values", type=int, default=40_000_000, help="number of values that rows draw from")
    parser.add_argument("--analyzer-cache", action="store_true")
    parser.add_argument("--file-rows", type=int, default=5_000_000, help="rows of a file")
    parser.add_argument("--work", type=Path, help="folder to keep rows and results in; defaults to a temporary one")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = args.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mode = scale if args.scale else analyzer_cache if args.analyzer_cache else side_by_side
        results = mode(args, work)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
