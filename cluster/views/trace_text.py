"""What `taskheat trace` prints: plain text for a person, JSON for a program."""

import dataclasses
import json
from collections.abc import Sequence

from cluster.trace import Exposure, Neighbour, SampleTrace, SampleTraces, StoredRow
from train.data.row import Refusal


def as_json_text(found: SampleTraces | Sequence[Neighbour]) -> str:
    """Indented JSON: an object for a sample's traces, a list for neighbours."""
    if isinstance(found, SampleTraces):
        return json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=1)
    return json.dumps([dataclasses.asdict(neighbour) for neighbour in found], ensure_ascii=False, indent=1)


def traces_text(found: SampleTraces) -> str:
    """One block a row, one line a refusal."""
    return "\n\n".join([*map(_sample_block, found.samples), *map(_refusal_line, found.refusals)])


def neighbours_text(neighbours: Sequence[Neighbour]) -> str:
    """One block a training row, the nearest first."""
    if not neighbours:
        return "no trained answer shares any wording with this output"
    return "\n\n".join(_neighbour_block(neighbour) for neighbour in neighbours)


def _sample_block(trace: SampleTrace) -> str:
    return "\n".join([f"task {trace.sample.task}", *_lineage(trace.sample), *_history(trace), *_text(trace.sample)])


def _neighbour_block(neighbour: Neighbour) -> str:
    heading = (
        f"{neighbour.similarity:.3f}  task {neighbour.sample.task}, trained {_times(neighbour.times_trained)}\n"
        f"  id          {neighbour.sample.id}\n"
        f"  source      {neighbour.sample.source}:{neighbour.sample.line}"
    )
    return "\n".join([heading, *_text(neighbour.sample)])


def _refusal_line(refusal: Refusal) -> str:
    task = f"task {refusal.task}: " if refusal.task else ""
    return f"{task}{refusal.source}:{refusal.line} was refused and never trained ({refusal.rule}: {refusal.reason})"


def _lineage(sample: StoredRow) -> list[str]:
    pairs = {
        "id": sample.id,
        "source": f"{sample.source}:{sample.line}",
        "content": sample.content_hash,
        "split": f"{sample.split}, row {sample.row}",
        **{name.replace("_", " "): _shown(value) for name, value in sample.lineage.items()},
    }
    width = max(11, *(len(name) for name, value in pairs.items() if value))
    return [f"  {name:<{width}} {value}" for name, value in pairs.items() if value]


def _shown(value: object) -> str:
    """As text; empty for what the lineage does not say."""
    match value:
        case None:
            return ""
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _history(trace: SampleTrace) -> list[str]:
    if trace.sample.split != "train":
        role = {
            "probe": "it steers the mixture",
            "selection": "it chooses between checkpoints",
            "test": "it is read once, after the last step",
        }[trace.sample.split]
        return [f"  held out as {trace.sample.split} row and never trained: {role}"]
    if not trace.exposures:
        return ["  a training row whose turn never came: trained 0 times"]
    return [
        f"  trained     {_times(len(trace.exposures))}",
        "        step  plan  stage  task weight  epoch  arrangement",
        *map(_exposure_line, trace.exposures),
    ]


def _exposure_line(exposure: Exposure) -> str:
    plan = f"{exposure.step:>12}  {exposure.plan_version:>4}  {exposure.stage:>5}"
    return f"{plan}  {exposure.weight:>11.1%}  {exposure.epoch:>5}  {exposure.arrangement}"


def _text(sample: StoredRow) -> list[str]:
    turns = [*sample.messages, ("answer", sample.answer)]
    indent = " " * 14
    return [f"  {role:<11} {content.strip()}".replace("\n", f"\n{indent}") for role, content in turns]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
