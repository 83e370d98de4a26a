"""The models that take part in comparisons: ours by name or file, the paper's from its committed checkpoints."""

from pathlib import Path

from experiments.common.reporting import say
from rangeformer.baselines import PaperConfig, PaperRangeFormer
from rangeformer.models.checkpoint import SHIPPED, load
from rangeformer.models.learned_krylov import LearnedKrylovConfig, LearnedKrylovModel
from rangeformer.models.looped_model import LoopedModel
from rangeformer.models.pure import PureConfig, PureRangeFormer

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
PURE, GALERKIN = "pure, trained", "Galerkin, trained"
PURE_UNTRAINED, GALERKIN_UNTRAINED = "pure, untrained", "Galerkin, untrained"
PAPER_OPERATIONS = ("solve", "eigenvalues", "logdet", "inverse")


def members(pure: str, galerkin: str, *, tiny: bool = False) -> dict[str, LoopedModel]:
    """Both members, untrained and trained, the Galerkin member last.

    Args:
        pure: The trained pure member, a shipped name or a `.safetensors` file; one that is not there is left out, and
            said so.
        galerkin: The trained Galerkin member, likewise.
        tiny: Tiny untrained models in all four places, for a smoke test.
    """
    if tiny:
        small = PureRangeFormer.untrained(PureConfig(num_loops=2, num_probes=8, hidden=8))
        block = LearnedKrylovModel.untrained(LearnedKrylovConfig(channels=4, num_loops=2))
        return {PURE_UNTRAINED: small, PURE: small, GALERKIN_UNTRAINED: block, GALERKIN: block}
    found: dict[str, LoopedModel] = {}
    for untrained_label, label, untrained, path in (
        (PURE_UNTRAINED, PURE, PureRangeFormer.untrained, pure),
        (GALERKIN_UNTRAINED, GALERKIN, LearnedKrylovModel.untrained, galerkin),
    ):
        if SHIPPED.get(path, Path(path)).is_file():
            trained = load(path)
            found |= {untrained_label: untrained(trained.config), label: trained}
        else:
            say(f"there are no weights {path!r}: that member takes part untrained only")
            found[untrained_label] = untrained()
    return found


def paper_models(weights: Path = WEIGHTS, *, tiny: bool = False) -> dict[str, PaperRangeFormer]:
    """The paper's model for each operation that has a file `paper-<operation>.safetensors`.

    Tiny untrained ones for a smoke test.
    """
    if tiny:
        sizes = {"n_max": 20, "channels": 16, "num_heads": 2, "num_loops": 2}
        return {name: PaperRangeFormer(PaperConfig(operation=name, **sizes)).eval() for name in PAPER_OPERATIONS}
    files = {name: weights / f"paper-{name}.safetensors" for name in PAPER_OPERATIONS}
    return {name: load(file) for name, file in files.items() if file.is_file()}
