"""Our networks as models of the Hugging Face Hub: `HubNet.from_pretrained("USER/NAME")`, or a folder."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import PyTorchModelHubMixin

from roadmap.design import BEFORE, Design
from roadmap.network import RoadmapNet


class HubNet(
    RoadmapNet,
    PyTorchModelHubMixin,
    library_name="timm",
    tags=["image-classification", "convnext-roadmap"],
    license="mit",
    paper_url="https://arxiv.org/abs/2201.03545",
):
    """A network that the Hub's own methods load and save; its arguments are keys of `config.json`.

    Args:
        roadmap: `{"design": {...}, "in_chans": 3}`, as `roadmap.pretrained` writes it.
        num_classes: outputs.
    """

    def __init__(self, roadmap: Mapping[str, Any], num_classes: int = 1000) -> None:
        super().__init__(Design(**{**BEFORE, **roadmap["design"]}), num_classes, roadmap.get("in_chans", 3))
