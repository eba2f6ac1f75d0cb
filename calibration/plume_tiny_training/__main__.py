"""Train plume-tiny: PYTHONPATH=calibration python -m plume_tiny_training OUTPUT"""

from pathlib import Path

import click
import torch

from .train import train


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--fp32", is_flag=True, help="Matrix products in float32, for processors without bfloat16 instructions.")
def main(output: Path, seed: int, threads: int, fp32: bool) -> None:
    """Train plume-tiny and write its checkpoint to OUTPUT, about an hour on two cores."""
    torch.set_num_threads(threads)
    train(output, seed=seed, in_bfloat16=not fp32, report=lambda line: click.echo(line, err=True))
    click.echo(str(output))


main()
