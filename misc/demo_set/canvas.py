"""A picture to paint on in coordinates from 0 to 1."""

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]


class Canvas:
    """A picture with coordinates from 0 to 1 in both directions."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.image = Image.new("RGB", (width, height))
        self.draw = ImageDraw.Draw(self.image)

    def points(self, *places: tuple[float, float]) -> list[tuple[float, float]]:
        """Convert places to pixels."""
        return [(x * self.width, y * self.height) for x, y in places]

    def gradient(self, top: Colour, bottom: Colour, start: float = 0.0, end: float = 1.0) -> None:
        """Fill a horizontal band with a colour that changes from top to bottom."""
        first, last = round(start * self.height), round(end * self.height)
        mix = np.linspace(0, 1, max(last - first, 1))[:, None]
        column = (1 - mix) * np.array(top) + mix * np.array(bottom)
        band = Image.fromarray(column.astype(np.uint8)[:, None])
        self.image.paste(band.resize((self.width, last - first)), (0, first))

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """Fill a rectangle."""
        self.draw.rectangle(self.points((left, top), (right, bottom)), fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: Colour, flat: float = 1.0) -> None:
        """Fill a circle, or an ellipse `flat` times as high; radius as a share of the height."""
        across, down = radius * self.height, radius * flat * self.height
        (x, y) = self.points((x, y))[0]
        self.draw.ellipse((x - across, y - down, x + across, y + down), fill=fill)

    def area(self, places: list[tuple[float, float]], fill: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon(self.points(*places), fill=fill)

    def line(self, places: list[tuple[float, float]], fill: Colour, width: float = 0.01) -> None:
        """Draw a line; its width is a share of the height."""
        pixels = max(1, round(width * self.height))
        self.draw.line(self.points(*places), fill=fill, width=pixels)

    def hill(self, rng: np.random.Generator, base: float, height: float, fill: Colour) -> None:
        """Fill everything below a wavy line."""
        x = np.linspace(0, 1, 25)
        phase, waves = rng.uniform(0, 6.3, 2), rng.uniform(0.6, 1.6, 2)
        y = base - height * (np.sin(6.3 * waves[0] * x + phase[0]) + 1) / 2
        y -= 0.25 * height * np.sin(12.6 * waves[1] * x + phase[1])
        self.area([(0, 1.01), *zip(x, y, strict=True), (1, 1.01)], fill)

    def grain(
        self, rng: np.random.Generator, strength: float, cell: float, start: float, end: float
    ) -> None:
        """Roughen a horizontal band with light and dark spots about `cell` of the height wide."""
        first, last = round(start * self.height), round(end * self.height)
        across = max(2, round(self.width / (cell * self.height)))
        down = max(2, round((last - first) / (cell * self.height)))
        spots = rng.normal(0, 1, (down, across)).astype(np.float32)
        large = Image.fromarray(spots).resize((self.width, last - first), Image.Resampling.BILINEAR)
        band = np.asarray(self.image)[first:last] * (1 + strength * np.asarray(large)[..., None])
        band = np.clip(band, 0, 255).astype(np.uint8)
        self.image.paste(Image.fromarray(band), (0, first))
