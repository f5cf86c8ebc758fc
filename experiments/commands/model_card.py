"""The model card of an exported network, from the record of its run: the README.md that the Hub shows."""

from collections.abc import Mapping
from typing import Any

from roadmap.escape import markdown, markdown_code

CARD = """---
library_name: timm
pipeline_tag: image-classification
license: mit
tags:
- image-classification
- timm
- convnext-roadmap
---

# {title}

{what}

{facts}

## Use

```python
import timm
import roadmap.timm_models  # of the package convnext-roadmap: registers the architecture

model = timm.create_model("hf-hub:USER/NAME", pretrained=True)
```

```python
import roadmap

model = roadmap.load("hf-hub:USER/NAME")
transform = model.eval_transform()
```

The code is MIT-licensed. The weights follow from the data that they were trained on: its licence says what they may be
used for.

The road from ResNet to ConvNeXt: Liu et al., *A ConvNet for the 2020s*, [arXiv:2201.03545](https://arxiv.org/abs/2201.03545).
"""


def card(config: Mapping[str, Any], record: Mapping[str, Any] | None) -> str:
    """A card in Markdown.

    Args:
        config: the content of `config.json`.
        record: that of the run's `result.json`, where there is one.
    """
    about = config.get("roadmap", {})
    name, regime = about.get("step") or (record or {}).get("label") or "network", about.get("regime", "")
    changes = ", ".join(about.get("changes") or ()) or "none"
    what = (
        f"A network on the road from ResNet to ConvNeXt (regime {regime or 'unknown'}), with these changes to "
        f"its first network: {changes}."
    )
    facts = [("architecture", markdown_code(str(config["architecture"]))), ("classes", config["num_classes"])]
    facts += [("evaluated on images of", " x ".join(map(str, config["pretrained_cfg"]["input_size"])))]
    facts += _of_record(record) if record else []
    rows = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts)]
    title = f"{name} ({regime})" if regime else name
    return CARD.format(title=markdown(title), what=markdown(what), facts="\n".join(rows))


def _of_record(record: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What only the run knows."""
    top5 = f", top-5 {record['top5']:.2f} %" if record.get("top5") is not None else ""
    averaged = f"; averaged weights {record['top1_ema']:.2f} %" if record.get("top1_ema") is not None else ""
    recipe, data = record["recipe"], record["data"]
    trained = f"{recipe['name']}, budget {record['budget']['name']}, {record['epochs']} epochs, seed {record['seed']}"
    rows = [
        ("data", markdown(data["name"])),
        ("accuracy", f"top-1 {record['top1']:.2f} %{top5}{averaged} (n = {record.get('eval_size', 'unknown')} images)"),
        ("recipe", markdown(trained)),
        ("parameters", f"{record['params'] / 1e6:.2f} M"),
        ("GMACs", f"{record['gmacs']:.3f}"),
        ("run", f"`{record['run_id']}`"),
    ]
    step = record.get("step")
    if step and "." not in step and not record.get("init_from"):
        command = [f"python run.py +step={step}", f"regime={record['regime']}", f"data={data['name']}"]
        command += [f"budget={record['budget']['name']}", f"seed={record['seed']}"]
        rows.append(("trained by", f"{markdown_code(' '.join(command))} and what `config.yaml` of the run says beside"))
    if record.get("init_from"):
        rows.append(("started from weights", f"`{record['init_from']}` (SHA-256)"))
    return rows
