"""The published prompt sets: where they are, what they hold, what they are known by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from membench.types import UNLABELLED

# The prompts of Wen's and of Hintersdorf's list
_SD1_500 = "de66d4ad44e6fc33b157db2c7b1dd2f4cecd5fad5b8ab5e2fffda96bc116a27d"


GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class KnownSet:
    """A published set. label: of rows whose kind does not give one; None: as the caller
    says. url: at a full commit; else repo (a hub data set), file and revision (empty:
    main). sha256, md5: of the file; empty where no digest of the very bytes is at hand.
    rows: as many as the set must have; 0 where that is not known for certain. first:
    rows that are read, from the start; None is all. texts: :func:`texts_hash` of its
    prompts, by which a copy is known under any name and in any format; empty where it
    is not known.
    """

    name: str
    what: str
    label: int | None
    file: str
    licence: str
    url: str = ""
    repo: str = ""
    revision: str = ""
    sha256: str = ""
    md5: str = ""
    rows: int = 0
    first: int | None = None
    texts: str = ""


def _webster(name: str, file: str, md5: str, what: str) -> KnownSet:
    # The MD5 are those of another project that downloads the files; they pin the bytes,
    # since no revision of the data set is known here.
    path = f"groundtruth_parquets/{file}_groundtruth.parquet"
    return KnownSet(
        name,
        f"Webster's prompts for {what}",
        UNLABELLED,
        path,
        "none stated",
        repo="fraisdufour/templates-verbs",
        md5=md5,
    )


def _at_github(
    place: str, name: str, file: str, what: str, label: int, rows: int, sha256: str, texts: str
) -> KnownSet:
    """A file of a repository under MIT. place: OWNER/REPOSITORY/COMMIT/FOLDER."""
    return KnownSet(
        name,
        what,
        label,
        file,
        "MIT",
        url=f"{GITHUB}/{place}/{file}",
        sha256=sha256,
        rows=rows,
        texts=texts,
    )


_hintersdorf = partial(
    _at_github,
    "ml-research/localizing_memorization_in_diffusion_models/"
    "c8de0c620ec511cdb9e937905d1503cd9758910b/prompts",
)
_ren = partial(_at_github, "renjie3/MemAttn/b1d476c36624a74e10145f889ce1d8268588f5c3/prompt")

_ALL = (
    _webster(
        "webster-sd1", "sdv1_bb_edge", "72c2dded275dda496de9c3f7c33c4f3d", "Stable Diffusion 1"
    ),
    _webster(
        "webster-sd2", "sdv2_bb_edge", "c700ae1d156a9330940d339a24740ed1", "Stable Diffusion 2"
    ),
    _webster(
        "webster-realistic-vision",
        "realistic_vision_sdv1_edge",
        "d4ce3781e41efb78289c936d87a79edf",
        "Realistic Vision",
    ),
    _webster(
        "webster-deep-if", "deep_if_sdv1_wb", "b21661ba27499b23cde515988292266e", "DeepFloyd IF"
    ),
    _webster(
        "webster-midjourney", "midjourney", "0c4329ae105832ce94d032e2c3012f25", "Midjourney v4"
    ),
    KnownSet(
        "wen",
        "Wen's 500 memorized prompts of Stable Diffusion 1",
        1,
        "sdv1_500_memorized.jsonl",
        "none: all rights reserved",
        url=f"{GITHUB}/YuxinWenRick/diffusion_memorization/ca60157f40a5d3bc41763e922ce27187fdf1adc4/examples/sdv1_500_memorized.jsonl",
        rows=500,
        texts=_SD1_500,
    ),
    _hintersdorf(
        "hintersdorf",
        "memorized_laion_prompts.csv",
        "Hintersdorf's 500 memorized prompts of Stable Diffusion 1",
        1,
        500,
        "0b527a5965dc463e7a3e0d234ff7fd5489b1a76869c456dbb209dc753cb4af25",
        _SD1_500,
    ),
    _hintersdorf(
        "laion",
        "unmemorized_laion_prompts.csv",
        "Hintersdorf's 500 LAION captions that are not memorized",
        0,
        500,
        "f453b418cc157864baacbf68d97447273feac41e8066b2ead6b307bf795988e1",
        "c8501a03402070111d7dad9d3f723794c7eef235370c9b272d84d484e0765956",
    ),
    _hintersdorf(
        "coco",
        "coco2014_val_10000.csv",
        "Hintersdorf's 10,000 captions of COCO 2014",
        0,
        10_000,
        "5445e449c60fd6b326a05c79a683c4d64620b0330a372de843eb6b9dbe5901e3",
        "06cd1df76a22e456c552b36f9238f4a30d333ef5459410e1cccb07c2d299191f",
    ),
    _ren(
        "ren-sd1",
        "sd1_mem345.txt",
        "Ren's 345 memorized prompts of Stable Diffusion 1",
        1,
        345,
        "70f370c4728aecd18e0db95dc58e9741b0f1a278dbfddb31d7d0754f69f8d069",
        "7f82e721aeb892158f7f9ff7baa5dcfc550898c8972589a9fe33e5bbd47a1754",
    ),
    _ren(
        "ren-sd2",
        "sd2_mem219.txt",
        "Ren's 219 memorized prompts of Stable Diffusion 2",
        1,
        219,
        "5776ec85cc25fde8c4843af990041a85813c3af7cb817c45dabb1a1bb9b6356f",
        "5ecb94f761ece862b771bdf58947576c8151517d91af71b1e6733eb0a3503e19",
    ),
    _ren(
        "ren-gpt4",
        "group_nomem500.txt",
        "Ren's 500 prompts that GPT-4 wrote",
        0,
        500,
        "4e0de75ae37b4fb2f8676026d876d9f4b03267a90041af4069d74b912e588c2d",
        "a336c8c0b7194108242ce52c9c9e8f6ade00a7f92a6f7d1aef44ac05b034e16a",
    ),
    # Wen's negatives: of the split "test", which is this file, the first 500.
    KnownSet(
        "gustavosta",
        "500 prompts of Lexica users (Gustavosta's test split)",
        0,
        "data/eval.parquet",
        "unknown",
        repo="Gustavosta/Stable-Diffusion-Prompts",
        revision="f40484704ca5bdeb389483123ba017897f1bfcdc",
        first=500,
    ),
)


KNOWN: dict[str, KnownSet] = {known.name: known for known in _ALL}
