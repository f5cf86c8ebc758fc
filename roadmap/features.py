"""A network of stages by timm's conventions: the map of any stage, all behind it cut off, parameters by layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn


class Staged(nn.Module):
    """What a stem, stages and a head make possible, whatever they are."""

    if TYPE_CHECKING:  # TorchScript would take them for its own types
        stem: nn.Module
        stages: nn.Sequential
        head: nn.ModuleDict
        feature_info: list[dict[str, Any]]
        num_features: int
        head_hidden_size: int

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a fresh classifier in place."""
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """Feature map of the last stage, (N, num_features, H / reduction, W / reduction)."""
        return self.stages(self.stem(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of chosen stages, each (N, C, H, W); before them, unless alone, the last map that was computed.

        Args:
            x: images (N, in_chans, H, W).
            indices: stages, from the end where negative; a number for the last so many; None for all.
            norm: without effect: the one norm behind the last stage is the head's, behind the pooling.
            stop_early: compute nothing behind the last chosen stage.
            output_fmt: "NCHW".
            intermediates_only: the chosen maps alone.

        Raises:
            ValueError: stages that there are not, or another format.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r} is not one of: NCHW")
        chosen = chosen_stages(indices, len(self.stages))
        end = max(chosen) + 1 if stop_early else len(self.stages)
        maps, x = [], self.stem(x)
        for index in range(end):
            x = self.stages[index](x)
            if index in chosen:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] | None = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Cut off all stages behind the last chosen one; returns the chosen ones, counted from the front.

        Args:
            indices: as of `forward_intermediates`.
            prune_norm: without effect: the head's norm goes with the head.
            prune_head: cut off pooling, norm and classifier too, which goes without saying where a stage goes.

        Raises:
            ValueError: stages that there are not.
        """
        chosen, count = chosen_stages(indices, len(self.stages)), len(self.stages)
        del self.stages[max(chosen) + 1 :]
        if prune_head or len(self.stages) < count:
            self.num_features = self.head_hidden_size = self.feature_info[max(chosen)]["num_chs"]
            if "norm" in self.head:
                del self.head["norm"]
            self.reset_classifier(0, "")
        return chosen

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of names for a rate per layer: stem, blocks (`coarse`: stages), and the head, which matches none.

        What halves the resolution in front of a stage is of the layer of its first block.
        """
        stage = r"^stages\.(\d+)"
        blocks = [(rf"{stage}\.blocks\.(\d+)", None), (rf"{stage}\.downsample", (0,))]
        return {"stem": r"^stem", "blocks": stage if coarse else blocks}

    def layers(self) -> list[tuple[str, ...]]:
        """What the names of a layer's parameters start with, from the first to the last: those of `group_matcher`."""
        blocks = [
            (f"stages.{i}.blocks.{j}.", *([f"stages.{i}.downsample."] if j == 0 else []))
            for i, stage in enumerate(self.stages)
            for j in range(len(cast(nn.Sequential, stage.blocks)))
        ]
        return [("stem.",), *blocks, ("head.",)]

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay beside those of one dimension (norms, biases, layer scale): none."""
        return set()


def chosen_stages(indices: int | Sequence[int] | None, count: int) -> list[int]:
    """Stages by their indices from the front.

    Args:
        indices: of stages, from the end where negative; a number for the last so many; None for all.
        count: how many stages there are.

    Raises:
        ValueError: an index out of range, or no stage at all.
    """
    if indices is None or isinstance(indices, int):
        last = count if indices is None else indices
        chosen = list(range(count - last, count)) if 0 < last <= count else []
    else:
        chosen = [index % count for index in indices if -count <= index < count]
        chosen = chosen if len(chosen) == len(indices) else []
    if not chosen:
        raise ValueError(
            f"indices={indices} must be stages from {-count} to {count - 1}, a number of last ones or None"
        )
    return chosen
