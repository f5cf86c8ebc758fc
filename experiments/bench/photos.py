"""Generated photographs: class folders of JPEG files with the sizes and the spectrum of real ones."""

import io
from pathlib import Path

import numpy as np

SIZES = ((500, 375), (375, 500), (500, 333), (500, 400), (640, 480), (400, 300))  # (width, height), ImageNet's usual
DISTINCT = 60  # pictures; more files repeat them
CLASSES = 10


def write_photos(folder: Path, train: int, val: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> None:
    """`train/classN/*.jpg` and `val/...`: `train` and `val` files in CLASSES classes, quality 90."""
    generator = np.random.default_rng(0)
    kinds = min(DISTINCT, max(train, val))
    encoded = [_photo(*sizes[index % len(sizes)], generator) for index in range(kinds)]
    for split, count in {"train": train, "val": val}.items():
        for label in range(CLASSES):
            (folder / split / f"class{label}").mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (folder / split / f"class{index % CLASSES}" / f"{index:06}.jpg").write_bytes(encoded[index % kinds])


def _photo(width: int, height: int, generator: np.random.Generator) -> bytes:
    """A JPEG file of noise whose amplitude falls with frequency as in photographs, alike in all three channels."""
    from PIL import Image

    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1

    def noise(power: float) -> np.ndarray:
        spectrum = generator.normal(size=frequency.shape) + 1j * generator.normal(size=frequency.shape)
        values = np.fft.irfft2(spectrum / frequency**power, s=(height, width))
        return values / values.std()

    shared = 45 * noise(1.1)
    planes = [shared + 20 * noise(1.4) + generator.uniform(90, 150) for _ in range(3)]
    file = io.BytesIO()
    Image.fromarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
