"""A run's figures as rows of ratios, as a table and as docs/performance.md."""

import dataclasses
import html
import statistics


@dataclasses.dataclass
class Row:
    what: str
    unit: str
    limit: str  # what the other side is
    pairs: list  # (Granary, limit) of each round
    target: float | None  # None: nobody set one

    def to_json(self):
        ratios = [ours / other for ours, other in self.pairs]
        return {"what": self.what, "unit": self.unit, "limit": self.limit, "target": self.target,
                "granary": statistics.median(ours for ours, _ in self.pairs),
                "other": statistics.median(other for _, other in self.pairs),
                "ratio": statistics.median(ratios), "ratio_min": min(ratios),
                "ratio_max": max(ratios)}


@dataclasses.dataclass
class Figure:
    """What has no other side: a time, a size."""
    what: str
    unit: str
    values: list  # of each round
    at_most: float | None = None

    def to_json(self):
        return {"what": self.what, "unit": self.unit, "at_most": self.at_most,
                "granary": statistics.median(self.values), "min": min(self.values),
                "max": max(self.values)}


def ratio_line(row):
    return (f"| {row['what']} | {row['granary']:,.0f} {row['unit']} | "
            f"{row['other']:,.0f} {row['unit']} ({row['limit']}) | "
            f"**{row['ratio']:.2f}** ({row['ratio_min']:.2f} - {row['ratio_max']:.2f}) | "
            f"{'-' if row['target'] is None else '>= %g' % row['target']} |")


def figure_line(row):
    target = "-" if row["at_most"] is None else f"<= {row['at_most']:g} {row['unit']}"
    return (f"| {row['what']} | {figure(row['granary'])} {row['unit']} "
            f"({figure(row['min'])} - {figure(row['max'])}) | - | - | {target} |")


def table(run):
    lines = ["| what | Granary | limit | ratio (min - max) | target |", "|---|---|---|---|---|"]
    lines += [ratio_line(row) if "ratio" in row else figure_line(row) for row in run["rows"]]
    return "\n".join(lines)


def figure(value):
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"


def sides_table(run):
    sides = run["sides"]
    names = [what for figures in sides.values() for what in figures]
    lines = ["| what | " + " | ".join(sides) + " |", "|---|" + "---|" * len(sides)]
    for what in dict.fromkeys(names):
        lines.append(f"| {what} | " + " | ".join(figure(figures.get(what))
                                                for figures in sides.values()) + " |")
    return "\n".join(lines)


def utilisation(values):
    if not values:
        return "failed"
    return f"**{statistics.median(values):.0f}** ({min(values):.0f} - {max(values):.0f})"


def dlio_table(run):
    workloads = run["dlio"]
    sides = list(next(iter(workloads.values()))["sides"])
    lines = ["| workload | epoch | " + " | ".join(sides) + " | target |",
             "|---|---|" + "---|" * (len(sides) + 1)]
    for name, workload in workloads.items():
        for epoch in ("cold", "warm"):
            lines.append(f"| {name}, {workload['step_seconds']:.3f} s a step | {epoch} | "
                         + " | ".join(utilisation(workload["sides"][side][epoch])
                                      for side in sides)
                         + f" | >= {workload['target']} |")
    return "\n".join(lines)


def tables(run):
    yield table(run)
    if run["sides"]:
        yield sides_table(run)
    if run["dlio"]:
        yield dlio_table(run)


def chart(run):
    """Bars of the ratios, with their targets as strokes."""
    left, width, step = 330, 420, 34
    rows = [row for row in run["rows"] if "ratio" in row]
    top = max([1.2] + [max(row["ratio"], row["target"] or 0) for row in rows])
    height = step * len(rows) + 40
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" '
             f'height="{height}" font-family="sans-serif" font-size="12">',
             f'<rect width="100%" height="{height}" fill="white"/>']
    for number, row in enumerate(rows):
        y = 12 + number * step
        target = row["target"] or 0
        length, mark = (width * value / top for value in (row["ratio"], target))
        colour = "#3a7d44" if row["ratio"] >= target else "#b5523b"
        label = html.escape(row["what"])
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{label}</text>'
                     f'<rect x="{left}" y="{y}" width="{length:.0f}" height="20" fill="{colour}"/>'
                     f'<line x1="{left + mark:.0f}" x2="{left + mark:.0f}" y1="{y - 3}" '
                     f'y2="{y + 23}" stroke="black" stroke-width="2"/>'
                     f'<text x="{left + length + 6:.0f}" y="{y + 14}">{row["ratio"]:.2f}</text>')
    one = left + width / top
    parts.append(f'<line x1="{one:.0f}" x2="{one:.0f}" y1="4" y2="{height - 24}" stroke="#888" '
                 f'stroke-dasharray="3 3"/><text x="{one:.0f}" y="{height - 8}" '
                 f'text-anchor="middle">1 = the limit; strokes: targets</text></svg>')
    return "\n".join(parts) + "\n"


def write(run, docs):
    (docs / "performance.md").write_text(page(run))
    (docs / "performance.svg").write_text(chart(run))


def others(run):
    if not run["sides"]:
        return ""
    return f"""
## Other mounts of the same server

MinIO behind a proxy that counts; one run each, so within about 20 %. Granary and the others in this order, `granary epoch` and the same loops as readers, the page cache dropped where it says so. The last column has no mount: what comes from the server is a client's that only GETs (cold epoch with as many connections as there are readers, records with one, the large file over the number that is best for it), what is cached is ext4's. A file of over 256 MiB is verified by a thread before the kernel gets it (passthrough), and the last two rows come before that: another one of 512 MiB was read at 3,400 to 4,300 MB/s until then and at 7,500 to 9,300 after.

{sides_table(run)}
"""


def dlio(run):
    if not run["dlio"]:
        return ""
    return f"""
## DLIO

Accelerator utilisation in percent, median (least - most) over rounds in which the sides took turns; DLIO 2.0.0's `_h100` workloads with fewer records (unet3d's an eighth as long) and smaller batches, two reader threads, one accelerator that sleeps. A step is the shortest tried, each half as long again as the one before, with which warm ext4 passes. unet3d is npz read by PyTorch, the others are TFRecord read by TensorFlow. *cold*: the first epoch with nothing cached, of MinIO with its files in the page cache, on ext4 of the disk; *warm*: the second.

{dlio_table(run)}
"""


def page(run):
    machine = run["machine"]
    return f"""# Performance

Generated by `./dev bench`; both sides of a ratio were measured in one run, a figure is the median of {run['rounds']} rounds.

Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, kernel {machine['kernel']}; commit {machine['commit']}. Origin, cache, loader and Granary share it. {run['files']:,} files of {run['file_bytes']:,} bytes, {run['readers']} reader processes, a fresh shuffle every epoch, every side read by `granary epoch`.

{table(run)}

![ratios](performance.svg)

[targets.md](targets.md) says where the time goes in the rows below their target, and what was tried.

What the rows mean:
- *page cache warm*: the same epoch again and again; on the mount the kernel answers from its page cache and Granary is not asked.
- *page cache dropped, store warm*: after `echo 3 > /proc/sys/vm/drop_caches`; Granary reads its packed store on the same filesystem and verifies the checksums.
- Before each measure of small files without a page cache and of cold ones, of either side, the free memory has the host's pages behind it (`bench/host_pages.py`): a virtual machine may have given them back, and whoever takes one next waits ten times as long.
- *cold epoch from S3*: an empty cache, MinIO on the same machine with its files in the page cache, requests signed with V4; the raw client only GETs, with presigned URLs, over as many kept connections: the server verifies a signature for both.
- *announced order*: the same through a proxy that adds 20 ms to each answer, with a quota of a tenth of the files and the order of the epoch announced as it begins (`granary epoch --announce`).
- *large file from S3, sequential*: an empty cache and one reader; the downloader gets ranges of 8 MiB over the number of connections that is best for it and writes them to a file.
- *20 ms away, 60 MB/s a connection*: the same through a proxy that holds each connection to that, as large object stores do: there the number of gets decides, next to MinIO on the same cores the CPU time of all who take part.
- *records*: random offsets of a file whose quota is far too small for it; the raw client asks for the same ranges.
- *worker by loopback TCP*: the worker has the file; the mount sees neither its sockets nor its store, as on another host.
- *find*: names only, then with the size of each file; dentries and inodes were dropped before.
- *files of a listing*: nginx serves a list of path, size and etag, and no file is ever read: what the import costs, then `granary up` of the known snapshot, whose process is master, worker and mount. Mapped files, the manifest above all, are no part of the memory.
- *PyTorch DataLoader*: 1,500 PNG files of the sample of `./dev run`, decoded by PIL in worker processes as torchvision does, 224 x 224 pixels of each made a batch; `bench/image_loader.py` reads every side, three rounds at most, each with a mount of its own on which warm epochs take turns with ext4. Python's `open()` asks of each file whether it is a terminal, and the kernel asks the mount: one request a file that `granary epoch` does not make.
{others(run)}{dlio(run)}"""
