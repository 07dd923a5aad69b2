"""The model card: `README.md` of the folder that holds the trained adapter or model.

Says what the model is, what it was trained on, how the mixture moved and how each task scored. Names no licence: that
is the owner's to add.
"""

import json

from evalsvc.report.page import percent_text, score_text
from evalsvc.report.schema import Report, RunFacts
from evalsvc.report.words import unit_in_words


def model_card(report: Report, facts: RunFacts) -> str:
    """The card as Markdown with the hub's YAML front matter."""
    sections = [
        _front_matter(facts),
        f"# {facts.run_name}\n\n{_summary(report, facts)}",
        f"## Tasks and evaluation\n\n{_task_table(report)}",
        f"## How the mixture moved\n\n{_mixture(report)}",
    ]
    if facts.rows:
        sections.append("\n\n".join(["## Data", _row_table(facts), *_sources(facts)]))
    sections.append(f"## How to load\n\n{_loading(facts)}")
    return "\n\n".join(sections) + "\n"


def _front_matter(facts: RunFacts) -> str:
    lines = [f"library_name: {'peft' if facts.has_adapter else 'transformers'}", "pipeline_tag: text-generation"]
    if facts.base_model is not None:
        lines.append(f"base_model: {json.dumps(facts.base_model)}")
    tags = ["taskheat", "multi-task", "fine-tuning", *(["lora"] if facts.has_adapter else [])]
    return "\n".join(["---", *lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _summary(report: Report, facts: RunFacts) -> str:
    kind = "LoRA adapter" if facts.has_adapter else "Causal language model"
    base = f" on `{facts.base_model}`" if facts.base_model is not None else ""
    return (
        f"{kind}{base} ({facts.model}), fine-tuned on {len(report.tasks)} tasks at once with taskheat: "
        f"{report.num_steps:,} steps of {report.global_batch_size} samples, {report.num_samples:,} samples in all. "
        "How much of each task it saw was decided while it trained, from evaluations on held-out probes."
    )


def _task_table(report: Report) -> str:
    rows = [
        (
            name,
            task.kind,
            *(score_text(score) for score in (task.first_score, task.last_score, task.test_score)),
            score_text(task.target_score),
        )
        for name, task in report.tasks.items()
    ]
    head = ("task", "kind", "first score", "last score", "test score", "target")
    note = (
        "Scores are means in [0, 1] by each task's own checker. First and last are of held-out probes that steered the "
        "mixture; the test score is of rows that were read once, at the end."
    )
    return f"{_table(head, rows)}\n\n{note}"


def _mixture(report: Report) -> str:
    rows = [
        (
            name,
            *(percent_text(value) for value in (task.first_weight, task.last_weight, task.realised_share)),
            f"{task.samples:,}",
        )
        for name, task in report.tasks.items()
    ]
    share = f"share of {unit_in_words(report.weight_unit)}"
    table = _table(("task", "first weight", "last weight", share, "samples"), rows)
    stage = report.stage_boundary_step
    exported = [event.text for event in report.events if event.kind == "export" and not event.superseded]
    facts = [
        *exported[-1:],
        f"{report.num_plans} plan{'' if report.num_plans == 1 else 's'}, the initial one included.",
        "All steps belong to one stage." if stage is None else f"Stage 2 began at step {stage}.",
    ]
    if report.biggest_change is not None:
        facts.append(f"Biggest change: {report.biggest_change.sentence}")
    facts += [f"{name}: {task.recognised}." for name, task in report.tasks.items() if task.recognised]
    facts += report.influence.sentences
    return f"{table}\n\n{' '.join(facts)}"


def _row_table(facts: RunFacts) -> str:
    rows = [(name, f"{rows.train:,}", f"{rows.probe:,}", f"{rows.test:,}") for name, rows in facts.rows.items()]
    note = "Distinct rows. Probes and test rows were kept out of training by the hash of their content."
    return f"{_table(('task', 'training', 'probes', 'test'), rows)}\n\n{note}"


def _sources(facts: RunFacts) -> list[str]:
    if not facts.sources:
        return []
    rows = [
        (source.path, f"{source.num_read:,}", f"{source.num_refused:,}", ", ".join(source.licences) or "not stated")
        for source in facts.sources
    ]
    table = _table(("source", "rows read", "refused", "licences its rows name"), rows)
    return [table, "Refused rows are in the run's quarantine, each with its line and the reason."]


def _loading(facts: RunFacts) -> str:
    if facts.has_adapter:
        imports, load = "from peft import AutoPeftModelForCausalLM", "AutoPeftModelForCausalLM"
        tokenizer = "from transformers import AutoTokenizer"
        lines = [imports, tokenizer]
    else:
        lines, load = ["from transformers import AutoModelForCausalLM, AutoTokenizer"], "AutoModelForCausalLM"
    arguments = "path, trust_remote_code=True" if facts.trust_remote_code else "path"
    lines += [
        "",
        'path = "."  # this folder',
        f"model = {load}.from_pretrained({arguments})",
        f"tokenizer = AutoTokenizer.from_pretrained({arguments})",
    ]
    return "\n".join(["```python", *lines, "```"])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells)
