#!/usr/bin/env python3
"""Times torch.topk as the benchmark times this project's top-k, on the shapes of its main table.

f32 scores from a standard normal distribution, k = 2048, the same input in every launch (hot). Each time is
the median over replays of one CUDA graph that holds a chain of 40 calls, divided by 40, in microseconds.
torch.topk returns values and 64-bit indices; it knows no lengths, so that every row is as wide as the tensor.

    torch_topk.py [--sorted] [--filter 64x] [--out torch_topk.json]
    torch_topk.py --list

Exit status: 0, 1 when an answer was wrong, 2 when torch or CUDA is missing or the arguments are bad.
"""

import argparse
import json
import statistics
import sys

K = 2048
CHAIN = 40  # calls in a graph
REPLAYS = 30  # samples behind a median
WARM_UP = 5  # replays before the samples
SEED = 0x5EED

# The lists `single` and `batch` of tests/src/bench/shapes.rs.
ROWS = [1, 8, 32, 64, 128, 256]
LENGTHS = [n << 10 for n in (3, 8, 16, 32, 64, 128, 256, 512, 1024)]
MOST_SCORES = 64 << 20


def shapes():
    """Rows and length of every cell."""
    return [(rows, length) for rows in ROWS for length in LENGTHS if rows * length <= MOST_SCORES]


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def load_torch():
    """The module, on a machine where it can use a GPU."""
    try:
        import torch
    except ImportError as error:
        fail(f"torch cannot be imported ({error}); install it (pip install torch) to time torch.topk")
    if not torch.cuda.is_available():
        fail(
            f"torch {torch.__version__} finds no CUDA device; times need an NVIDIA GPU, its driver, and a torch "
            "built with CUDA"
        )
    return torch


def is_right(torch, scores, values, indices):
    """Whether the values are those of the k largest, at distinct indices."""
    picked = torch.gather(scores, 1, indices)
    expected = torch.sort(scores, dim=1, descending=True).values[:, :K]
    distinct = torch.sort(indices, dim=1).values.diff(dim=1).min().item() > 0
    ordered = torch.sort(values, dim=1, descending=True).values
    return distinct and torch.equal(picked, values) and torch.equal(ordered, expected)


def time_cell(torch, rows, length, in_order):
    """Microseconds per call, and whether the answer is right."""
    generator = torch.Generator(device="cuda").manual_seed(SEED)
    scores = torch.randn(rows, length, device="cuda", generator=generator)
    values = torch.empty(rows, K, device="cuda")
    indices = torch.empty(rows, K, device="cuda", dtype=torch.int64)

    def call():
        torch.topk(scores, K, dim=1, largest=True, sorted=in_order, out=(values, indices))

    # Once outside of the graph: torch sets itself up, which a capture does not allow.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CHAIN):
            call()

    values.fill_(float("nan"))
    indices.fill_(-1)
    graph.replay()
    torch.cuda.synchronize()
    exact = is_right(torch, scores, values, indices)

    for _ in range(WARM_UP):
        graph.replay()
    samples = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) * 1e3 / CHAIN)
    return statistics.median(samples), exact


def label(length):
    return f"{length >> 20}M" if length >= 1 << 20 else f"{length >> 10}K"


def table(cells):
    """Markdown, one line for each number of rows."""
    times = {(cell["rows"], cell["len"]): cell for cell in cells}
    rows_of, lengths = sorted({rows for rows, _ in times}), sorted({length for _, length in times})
    lines = [
        "| rows x len | " + " | ".join(map(label, lengths)) + " |",
        "|---|" + "--:|" * len(lengths),
    ]
    for rows in rows_of:
        row = []
        for length in lengths:
            cell = times.get((rows, length))
            if cell is None:
                row.append("")
            elif cell["us_hot"] is None:
                row.append("failed")
            else:
                row.append(f"{cell['us_hot']:.1f}" + ("" if cell["exact"] else " NOT EXACT"))
        lines.append(f"| {rows} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="torch_topk.json", metavar="FILE", help="where the JSON goes")
    parser.add_argument("--filter", metavar="TEXT", help="only the shapes whose ROWSxLENGTH contains this text")
    parser.add_argument("--sorted", action="store_true", help="sorted results; unsorted unless given")
    parser.add_argument("--list", action="store_true", help="print the shapes and do nothing")
    arguments = parser.parse_args()
    chosen = [s for s in shapes() if arguments.filter is None or arguments.filter in f"{s[0]}x{s[1]}"]
    if not chosen:
        fail(f"--filter {arguments.filter!r}: no shape has this in its name; --list prints the shapes")
    if arguments.list:
        print("\n".join(f"{rows}x{length}" for rows, length in chosen))
        return 0
    torch = load_torch()
    cells = []
    for rows, length in chosen:
        cell = {"rows": rows, "len": length, "k": K, "us_hot": None, "exact": False, "error": None}
        try:
            cell["us_hot"], cell["exact"] = time_cell(torch, rows, length, arguments.sorted)
        except RuntimeError as error:  # out of memory, or a call that cannot be captured
            cell["error"] = str(error)
            print(f"{rows}x{length}: {error}", file=sys.stderr)
        else:
            verdict = "exact" if cell["exact"] else "NOT EXACT"
            print(f"{rows}x{length}: {cell['us_hot']:.2f} us, {verdict}", file=sys.stderr)
        cells.append(cell)
        torch.cuda.empty_cache()
    report = {
        "what": "torch.topk",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name(),
        "sorted": arguments.sorted,
        "distribution": "normal",
        "chain": CHAIN,
        "cases": cells,
    }
    print(f"torch.topk, torch {report['torch']}, {report['device']}, us per call, k = {K}, hot\n")
    print(table(cells))
    try:
        with open(arguments.out, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)
            file.write("\n")
    except OSError as error:
        fail(f"--out {arguments.out}: {error}")
    # A cell that could not run has no answer; only a wrong answer is wrong.
    return 1 if any(cell["us_hot"] is not None and not cell["exact"] for cell in cells) else 0


if __name__ == "__main__":
    sys.exit(main())
