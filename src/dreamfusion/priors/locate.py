"""Where a prior's folder is: in the package, on this machine, or on the model hub."""

import os
import re
from importlib.resources import files
from pathlib import Path

from dreamfusion.errors import UserError
from dreamfusion.priors.folder import PipelineFolder, read_pipeline
from dreamfusion.priors.kinds import kind_of

HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# No pickles, no duplicates in other precisions or for other frameworks.
HUB_LEFT_OUT = ["*.bin", "*.msgpack", "*.onnx*", "*.fp16*", "*.non_ema*", "*openvino*", "*flax*"]


def locate(name: str, texts: bool = True) -> PipelineFolder:
    """The folder that a name means; only a hub id that is no folder here makes the hub be asked.

    `texts`: whether the text encoders are needed too. Raises UserError for a name that means nothing, and for a folder
    of an unsupported kind.
    """
    folder = read_pipeline(_path(name, texts))
    kind_of(folder)
    return folder


def _path(name: str, texts: bool) -> Path:
    if name == "embedded":
        return Path(str(files("dreamfusion"))) / "embedded" / "weights"
    path = Path(os.path.expanduser(name))  # os.path's are False where Path's raise: for what can be no name of a file
    if os.path.isdir(path):
        return path
    asked = HUB_ID.fullmatch(name)
    if os.path.exists(path) or asked is None:
        raise UserError(
            f'there is no prior {name!r}: give "embedded", a diffusers pipeline folder, or a hub id such as owner/model'
            " or owner/model@revision"
        )
    return _download(asked["id"], asked["revision"], texts)


def _download(name: str, revision: str | None, texts: bool) -> Path:
    """A hub repository's folder in the cache, fetched if need be; its kind is checked before gigabytes come."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        index = hf_hub_download(name, "model_index.json", revision=revision)
        parts = kind_of(read_pipeline(Path(index).parent)).components(texts)
        wanted = ["model_index.json", "card.json", *(f"{part}/*" for part in parts)]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=HUB_LEFT_OUT))
    except (OSError, ValueError, HTTPError) as error:
        pin = f" --revision {revision}" if revision else ""
        raise UserError(
            f"there is no folder {name!r}, and the model hub did not give it ({type(error).__name__}): check the name"
            f" and your access rights; without a network, run `hf download {name}{pin} --local-dir DIR` on a machine"
            " that has one, copy DIR here, and give --prior DIR"
        ) from error
