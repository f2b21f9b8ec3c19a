"""``mars export``: runs and trained models for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..errors import UserError
from .completions import named_optimizers


def export(
    run_dir: Path = Path("mars-pilot"),
    /,
    *,
    tensorboard: Annotated[bool, Parameter(negative="")] = False,
    trackio: Annotated[bool, Parameter(negative="")] = False,
    wandb: Annotated[bool, Parameter(negative="")] = False,
    transformers: Path | None = None,
    standalone: Annotated[str | None, Parameter(completer=named_optimizers)] = None,
    form: str = "optimizer",
    gamma: str | None = None,
    best: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
) -> None:
    """Write results for TensorBoard, W&B and others, or an optimizer as one file.

    Nothing leaves this machine. You can call the command again while runs go on: it writes only
    runs that have grown.

    Parameters
    ----------
    run_dir:
        Folder of a pilot, of mars train, or of one run. With --standalone, the file to write.
    tensorboard:
        Write the runs as event files, for tensorboard --logdir.
    trackio:
        Write the runs to trackio's database, for trackio show.
    wandb:
        Write the runs as W&B's offline files, for wandb sync.
    transformers:
        Write the trained GPT of one run, with its tokenizer, to this new folder, for
        AutoModelForCausalLM.from_pretrained.
    standalone:
        Write the optimizer of this name, such as mars-adamw-auto, as one file that needs only
        torch.
    form:
        Form of the file: "optimizer", "speedrun" with the optimizer block of a modded-nanogpt
        script, or "algoperf-self" or "algoperf-external", a submission to AlgoPerf.
    gamma:
        With --standalone: "auto" or a number, in place of the name's own gamma.
    best:
        With --transformers: take the weights of the lowest validation loss, if the run kept that
        checkpoint.
    out:
        Folder to write the runs to (default: the program's name, in run_dir).
    """
    if tensorboard + trackio + wandb + sum(x is not None for x in (transformers, standalone)) != 1:
        raise UserError(
            f"name the program to export to: mars export {run_dir} with --tensorboard, "
            "--trackio, --wandb or --transformers OUT; or mars export --standalone NAME "
            "OUT.py"
        )
    if standalone is not None:
        if best or out is not None:
            raise UserError(
                "--best and --out work only with runs: mars export --standalone NAME OUT.py "
                "takes neither"
            )
        from ..experiment.export.standalone import export_standalone

        print(export_standalone(standalone, run_dir, form=form, gamma=gamma))
        return
    if form != "optimizer" or gamma is not None:
        raise UserError("--form and --gamma work only with --standalone NAME OUT.py")
    if transformers is not None:
        if out is not None:
            raise UserError(
                "--out does not work with --transformers OUT, which names its folder itself: "
                "leave --out out"
            )
        from ..experiment.export.transformers import export_model

        print(export_model(run_dir, transformers, best=best))
        return
    if best:
        raise UserError("--best works only with --transformers OUT")
    name = "tensorboard" if tensorboard else "trackio" if trackio else "wandb"
    print(_export_runs(run_dir, name, out or run_dir / name))


def _export_runs(run_dir: Path, name: str, out: Path) -> str:
    from ..experiment.export.scalars import Bridge, export_runs
    from ..experiment.export.tensorboard import TensorBoard
    from ..experiment.export.trackio import Trackio
    from ..experiment.export.wandb import WandB

    project = run_dir.resolve().name
    bridge: Bridge
    if name == "tensorboard":
        bridge = TensorBoard(out)
    else:
        bridge = Trackio(out, project) if name == "trackio" else WandB(out, project)
    written, kept = export_runs(run_dir, bridge)
    already = f", {kept} were there already" if kept else ""
    return f"{written} runs written{already}. To see them: {bridge.look}"
