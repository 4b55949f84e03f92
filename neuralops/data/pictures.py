"""Real pictures that come inside scikit-image and scikit-learn: no download, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from neuralops.arguments import count, flag
from neuralops.extras import require

__all__ = ["NAMES", "digits", "patches", "picture", "split"]

# Photographs and scans that are files of the installed packages; scikit-image fetches its other pictures.
_FILES = {
    **{
        name: ("skimage", f"data/{file}")
        for name, file in {
            "astronaut": "astronaut.png", "brick": "brick.png", "camera": "camera.png", "cell": "cell.png",
            "chelsea": "chelsea.png", "coffee": "coffee.png", "coins": "coins.png", "grass": "grass.png",
            "gravel": "gravel.png", "hubble": "hubble_deep_field.jpg", "immunohistochemistry": "ihc.png",
            "moon": "moon.png", "motorcycle": "motorcycle_left.png", "page": "page.png", "retina": "retina.jpg",
            "rocket": "rocket.jpg", "text": "text.png",
        }.items()
    },
    **{name: ("sklearn", f"datasets/images/{name}.jpg") for name in ("china", "flower")},
}  # fmt: skip
NAMES = tuple(sorted(_FILES))
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)  # Rec. 709, as scikit-image's rgb2gray


def picture(name: str, *, colour: bool = False) -> Float[np.ndarray, "channels height width"]:
    """One picture, float32 in [0, 1], `(1, height, width)`, or `(3, height, width)` in colour.

    Grey is the luminance 0.2125 R + 0.7154 G + 0.0721 B; a grey picture in colour has three equal channels.

    **Raises:** `ValueError` on a name that is not in `NAMES`; `ImportError` without the extra `pictures`;
    `FileNotFoundError` when the installed package lacks the file.
    """
    if name not in _FILES:
        raise ValueError(f"name: expected one of {NAMES}, got {name!r}; use one of these.")
    colour = flag(colour, "colour")
    package, file = _FILES[name]
    path = Path(str(require(package, "data.pictures", "pictures").__file__)).parent / file
    if not path.is_file():
        raise FileNotFoundError(
            f"name: expected {file} inside the installed {package}, got none; install its wheel, or use another name."
        )
    x = require("skimage.io", "data.pictures", "pictures").imread(path)
    x = (x[..., None] if x.ndim == 2 else x[..., :3]).astype(np.float32) / 255
    if x.shape[-1] == 1:
        x = np.repeat(x, 3, -1) if colour else x
    elif not colour:
        x = (x @ _LUMINANCE)[..., None]
    return np.ascontiguousarray(np.moveaxis(np.clip(x, 0, 1), -1, 0))


def split(
    names: Sequence[str] = NAMES, *, num_test: int = 6, num_validation: int = 0, seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names for training, validation and test: by picture, so that no patch of a test picture is trained on.

    **Raises:** `ValueError` on unknown or repeated names, or when nothing is left for training.
    """
    names = _checked(names)
    num_test, num_validation = count(num_test, "num_test", 0), count(num_validation, "num_validation", 0)
    held = num_test + num_validation
    if held >= len(names):
        raise ValueError(
            f"num_test, num_validation: expected fewer than the {len(names)} pictures together, got {held}; hold back "
            "fewer."
        )
    order = np.random.default_rng(count(seed, "seed", 0)).permutation(len(names))
    pick = lambda chosen: tuple(sorted(names[i] for i in chosen))
    return pick(order[held:]), pick(order[num_test:held]), pick(order[:num_test])


def patches(
    names: Sequence[str],
    size: int | tuple[int, int],
    num: int,
    *,
    seed: int,
    colour: bool = False,
    flips: bool = True,
) -> Float[np.ndarray, "num channels height width"]:
    """Patches cut at random from pictures, `(num, channels, size, size)` in [0, 1], as many from each picture.

    **Arguments:**

    - `names`: of pictures, from `NAMES` or `split`.
    - `size`: points per side, or `(height, width)`.
    - `num`: how many.
    - `seed`: of places and flips; the same seed, the same patches.
    - `colour`: three channels instead of one.
    - `flips`: each patch is also mirrored and, when square, turned by multiples of 90 degrees at random.

    **Raises:** `ValueError` on arguments outside the above or patches larger than a picture; `ImportError` without the
    extra `pictures`.
    """
    names, num, flips = _checked(names), count(num, "num"), flag(flips, "flips")
    height, width = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    height, width = count(height, "size"), count(width, "size")
    random = np.random.default_rng(count(seed, "seed", 0))
    out = np.empty((num, 3 if flag(colour, "colour") else 1, height, width), np.float32)
    for i, name in enumerate(names):
        x = picture(name, colour=colour)
        if x.shape[1] < height or x.shape[2] < width:
            raise ValueError(
                f"size: expected at most {x.shape[1:]}, the size of {name!r}, got {(height, width)}; cut smaller ones."
            )
        for k in range(i, num, len(names)):
            top, left = random.integers(x.shape[1] - height + 1), random.integers(x.shape[2] - width + 1)
            patch = x[:, top : top + height, left : left + width]
            if flips:
                patch = np.rot90(patch, int(random.integers(4) if height == width else 2 * random.integers(2)), (1, 2))
                patch = patch[..., ::-1] if random.integers(2) else patch
            out[k] = patch
    return out


def digits() -> tuple[Float[np.ndarray, "1797 1 8 8"], Int[np.ndarray, " 1797"]]:
    """The handwritten digits of scikit-learn, in [0, 1], and which digit each is.

    **Raises:** `ImportError` without the extra `pictures`.
    """
    found = require("sklearn.datasets", "data.pictures", "pictures").load_digits()
    return (found.images[:, None] / 16).astype(np.float32), found.target.astype(np.int32)


def _checked(names: Any) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names)
    unknown = [name for name in names if name not in _FILES]
    if unknown or not names or len(set(names)) < len(names):
        raise ValueError(f"names: expected different names of {NAMES}, got {unknown or names!r}; use some of these.")
    return names
