"""What a trained model answers, as numbers."""

import torch

from rangeformer.baselines.lawt.decoding import Model, beam, greedy
from rangeformer.baselines.lawt.tasks import TASKS
from rangeformer.shapes import Bool, Float, Tensor


def predict(
    model: Model, matrices: Float[Tensor, "b p q"], task: str, *, joint: bool = False, num_beams: int = 1
) -> tuple[Float[Tensor, "b r s"], Bool[Tensor, " b"]]:
    """Write matrices as tokens, let the model answer, read its answers.

    Nothing is checked beyond their form: an answer is a string of likely digits.

    Args:
        model: What answers, on any device; matrices of sizes that it was not trained on are words it never heard.
        matrices: Inputs in the task's form (`rangeformer.baselines.lawt.tasks`), finite.
        task: One of the nine.
        joint: Whether the model was trained on several tasks, and reads the token of one first.
        num_beams: 1 for greedy decoding.

    Returns:
        Answers `(b, r, s)` of the dtype and on the device of `matrices`, NaN where malformed, and whether each is
        well-formed.

    Raises:
        ValueError: If the task is unknown, or the input has not its form, or a number that the encoding cannot write.

    Example:
        >>> import torch
        >>> from rangeformer.baselines.lawt import LawtConfig, LawtTransformer, predict
        >>> values, well_formed = predict(LawtTransformer(LawtConfig()), torch.eye(3).unsqueeze(0), "eigenvalues")
        >>> values.shape, well_formed.tolist()  # an untrained model writes nonsense
        (torch.Size([1, 3, 1]), [False])
    """
    if task not in TASKS:
        raise ValueError(f"`task` must be one of {list(TASKS)}. Got {task!r}.")
    if not bool(torch.isfinite(matrices).all()):
        raise ValueError("`matrices` must be finite. Got NaN or infinity, which no encoding can write; remove them.")
    vocabulary, device = model.config.vocabulary, next(model.parameters()).device
    name = task if joint else None
    shape = _output_shape(task, matrices.shape[-2], matrices.shape[-1])
    source = vocabulary.write(matrices.to("cpu", torch.float64), vocabulary.input, name).to(device)
    max_tokens = vocabulary.length(shape, vocabulary.output, joint=joint)
    if num_beams == 1:
        tokens = greedy(model, source, max_tokens)
    else:
        tokens = beam(model, source, max_tokens, num_beams=num_beams)
    values, well_formed = vocabulary.read(tokens.cpu(), shape, vocabulary.output, name)
    return values.to(matrices), well_formed.to(matrices.device)


def _output_shape(task: str, p: int, q: int) -> tuple[int, int]:
    """Of the answer to an input of p rows and q columns, operands side by side."""
    matter = TASKS[task]
    columns = [n for n in range(1, q + 1) if matter.input_shape(p, n) == (p, q)]
    if not columns or (matter.square and p != columns[0]):
        kind = "square" if matter.square else "its operands side by side"
        raise ValueError(f"`matrices` must be {kind} for the task {task!r}. Got {p} x {q}.")
    return matter.output_shape(p, columns[0])
