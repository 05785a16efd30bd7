"""Ask for the class of every .npy file in a folder, several at a time, and print a table as CSV.

pip install '.[client]'      # and in another shell: spikeserve serve
python examples/batch_of_files.py http://localhost:8000 digits folder > classes.csv
"""

from __future__ import annotations

import sys

if len(sys.argv) != 4:
    sys.exit(__doc__)  # before what may not be installed

import asyncio
import csv
from pathlib import Path

from spikeserve import AsyncClient, Prediction

AT_ONCE = 8  # requests; the server may refuse more than its queue holds


async def main(url: str, model: str, folder: Path) -> None:
    """Write a row for each sample of each file, in the order of their names."""
    places = asyncio.Semaphore(AT_ONCE)
    async with AsyncClient(url, model=model) as client:

        async def ask(path: Path) -> list[Prediction]:
            async with places:
                return await client.predict(path)  # an array of one sample or several

        paths = sorted(folder.glob("*.npy"))
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(["file", "sample", "class", "spikes"])
        for path, predictions in zip(paths, await asyncio.gather(*map(ask, paths)), strict=True):
            for index, prediction in enumerate(predictions):
                table.writerow([path.name, index, prediction.label, int(prediction.spike_counts.sum())])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
