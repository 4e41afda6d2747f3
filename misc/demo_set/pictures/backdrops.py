"""Paints the backdrop of each scene: colours, shapes and texture, different in every clip."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

# Drawn at twice the size and reduced, which smooths the edges.
_SCALE = 2
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


Painter = Callable[[Canvas, np.random.Generator], None]


def paint_backdrop(scene: str, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Paint one scene as an RGB picture of `width` x `height` pixels."""
    canvas = Canvas(width * _SCALE, height * _SCALE)
    PAINTERS[scene](canvas, rng)
    return canvas.image.reduce(_SCALE)


def _vary(rng: np.random.Generator, colour: Colour, by: float = 14) -> Colour:
    red, green, blue = (int(np.clip(value + rng.uniform(-by, by), 0, 255)) for value in colour)
    return red, green, blue


def _beach(canvas: Canvas, rng: np.random.Generator) -> None:
    horizon, shore = rng.uniform(0.36, 0.46), rng.uniform(0.58, 0.66)
    canvas.gradient(_vary(rng, (110, 180, 235)), (215, 236, 250), 0, horizon)
    canvas.disc(rng.uniform(0.15, 0.85), rng.uniform(0.1, 0.24), 0.08, (255, 240, 160))
    canvas.gradient(_vary(rng, (20, 95, 165)), (70, 175, 195), horizon, shore)
    for y in np.linspace(horizon + 0.04, shore - 0.02, 4):
        x = rng.uniform(0, 0.7)
        canvas.line([(x, y), (x + rng.uniform(0.1, 0.3), y)], (190, 225, 240), 0.012)
    canvas.gradient(_vary(rng, (240, 218, 160)), _vary(rng, (222, 190, 125)), shore, 1)
    canvas.line([(0, shore), (1, shore)], (250, 250, 250), 0.02)
    canvas.grain(rng, 0.06, 0.015, shore + 0.02, 1)
    side = rng.choice([0.1, 0.9])
    trunk = [(side, 0.75), (side + 0.02, 0.5), (side + 0.05 * np.sign(0.5 - side), 0.26)]
    canvas.line(trunk, (125, 85, 50), 0.04)
    top = trunk[-1]
    for angle in np.linspace(0.2, 6.1, 7):
        tip = (top[0] + 0.13 * np.cos(angle), top[1] + 0.11 * np.sin(angle) + 0.03)
        canvas.line([top, tip], _vary(rng, (40, 130, 60)), 0.035)


def _forest(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(_vary(rng, (70, 115, 75)), _vary(rng, (35, 70, 40)), 0, 0.75)
    canvas.gradient(_vary(rng, (70, 85, 40)), _vary(rng, (45, 60, 28)), 0.72, 1)
    for depth in (0, 1):
        for x in np.sort(rng.uniform(0, 1, 7)):
            bark = _vary(rng, (62, 50, 38) if depth == 0 else (85, 60, 38))
            wide = rng.uniform(0.012, 0.02) * (1 + depth)
            foot = 0.74 + 0.08 * depth + rng.uniform(-0.02, 0.02)
            canvas.box(x - wide, 0, x + wide, foot, bark)
        for _ in range(16):
            x, y = rng.uniform(0, 1), rng.uniform(0, 0.3 - 0.1 * depth)
            canvas.disc(x, y, rng.uniform(0.05, 0.1), _vary(rng, (30, 85 + 20 * depth, 35)))
    canvas.grain(rng, 0.16, 0.03, 0, 1)


def _city(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(_vary(rng, (10, 14, 45)), _vary(rng, (50, 45, 95)), 0, 0.85)
    canvas.disc(rng.uniform(0.1, 0.9), 0.12, 0.06, (240, 240, 215))
    x = -0.05
    while x < 1:
        wide, roof = rng.uniform(0.1, 0.18), rng.uniform(0.12, 0.45)
        canvas.box(x, roof, x + wide, 0.82, _vary(rng, (38, 40, 62), 10))
        for left in np.arange(x + 0.015, x + wide - 0.02, 0.032):
            for top in np.arange(roof + 0.03, 0.78, 0.055):
                lit = rng.random() < 0.45
                colour = _vary(rng, (250, 215, 110), 20) if lit else (26, 28, 46)
                canvas.box(left, top, left + 0.016, top + 0.028, colour)
        x += wide + rng.uniform(0, 0.02)
    canvas.gradient((62, 62, 70), (40, 40, 46), 0.82, 1)
    for left in np.arange(rng.uniform(0, 0.1), 1, 0.16):
        canvas.box(left, 0.91, left + 0.08, 0.925, (220, 215, 150))


def _kitchen(canvas: Canvas, rng: np.random.Generator) -> None:
    wall, wood = _vary(rng, (238, 232, 214), 10), _vary(rng, (172, 118, 70))
    canvas.gradient(wall, _vary(rng, (222, 214, 192), 8), 0, 1)
    for x in np.arange(0, 1, 0.07):
        canvas.line([(x, 0), (x, 0.62)], (203, 196, 178), 0.008)
    for y in np.arange(0, 0.62, 0.092):
        canvas.line([(0, y), (1, y)], (203, 196, 178), 0.008)
    dark = tuple(int(0.7 * value) for value in wood)
    for left in rng.choice(3, 2, replace=False) * 0.33:
        canvas.box(left + 0.02, 0, left + 0.29, 0.2, wood)
        canvas.line([(left + 0.155, 0), (left + 0.155, 0.2)], dark, 0.012)
    canvas.box(0, 0.62, 1, 0.66, _vary(rng, (120, 120, 125)))
    canvas.box(0, 0.66, 1, 0.93, wood)
    for left in np.arange(0, 1, 0.2):
        canvas.line([(left, 0.66), (left, 0.93)], dark, 0.012)
        canvas.disc(left + 0.17, 0.76, 0.012, (225, 225, 225))
    stove = rng.uniform(0.1, 0.65)
    canvas.box(stove, 0.64, stove + 0.22, 0.93, (70, 72, 78))
    canvas.box(stove + 0.03, 0.74, stove + 0.19, 0.88, (25, 25, 28))
    canvas.box(stove + 0.04, 0.53, stove + 0.15, 0.62, (150, 155, 165))
    canvas.box(0, 0.93, 1, 1, (95, 80, 68))


def _snow(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(_vary(rng, (165, 200, 232)), (225, 236, 245), 0, 0.65)
    for x in rng.permutation([0.15, 0.5, 0.85]) + rng.uniform(-0.1, 0.1, 3):
        peak, wide = rng.uniform(0.12, 0.3), rng.uniform(0.22, 0.34)
        canvas.area([(x - wide, 0.66), (x, peak), (x + wide, 0.66)], _vary(rng, (120, 135, 160)))
        cap = 0.4
        left, right = (x - cap * wide, peak + cap * 0.45), (x + cap * wide, peak + cap * 0.45)
        canvas.area([left, (x, peak), right, (x, peak + 0.12)], (250, 252, 255))
    canvas.gradient((240, 245, 252), _vary(rng, (214, 224, 240), 8), 0.62, 1)
    for x in rng.uniform(0, 1, 6):
        foot = rng.uniform(0.62, 0.72)
        for part in range(3):
            y, wide = foot - 0.05 * part, 0.05 - 0.011 * part
            tree = [(x - wide, y), (x, y - 0.1), (x + wide, y)]
            canvas.area(tree, _vary(rng, (28, 78, 62), 8))
    for x, y in rng.uniform(0, 1, (50, 2)):
        canvas.disc(x, y, rng.uniform(0.006, 0.012), (255, 255, 255))
    canvas.grain(rng, 0.025, 0.03, 0.64, 1)


def _desert(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(_vary(rng, (245, 185, 110)), (252, 225, 170), 0, 0.6)
    canvas.disc(rng.uniform(0.15, 0.85), rng.uniform(0.14, 0.25), 0.09, (255, 246, 205))
    canvas.hill(rng, 0.58, 0.14, _vary(rng, (214, 150, 85)))
    canvas.hill(rng, 0.7, 0.14, _vary(rng, (226, 168, 98)))
    canvas.hill(rng, 0.84, 0.12, _vary(rng, (208, 146, 80)))
    for y in np.arange(0.74, 1, 0.035):
        x = np.linspace(0, 1, 20)
        ripple = y + 0.008 * np.sin(25 * x + rng.uniform(0, 6))
        canvas.line(list(zip(x, ripple, strict=True)), (190, 128, 68), 0.008)
    for x in rng.choice([0.08, 0.22, 0.78, 0.92], 2, replace=False):
        green = _vary(rng, (62, 120, 66))
        foot = rng.uniform(0.66, 0.78)
        canvas.line([(x, foot), (x, foot - 0.28)], green, 0.05)
        for side in (-1, 1):
            elbow, bend = (x + 0.045 * side, foot - 0.13), foot - 0.13 - 0.02 * side
            canvas.line([(x, bend), (elbow[0], bend), (elbow[0], bend - 0.1)], green, 0.035)


def _underwater(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(_vary(rng, (60, 165, 205)), _vary(rng, (10, 55, 115)), 0, 0.88)
    for x in rng.uniform(0, 1, 5):
        ray = Image.new("L", canvas.image.size, 0)
        shape = canvas.points((x, 0), (x + 0.06, 0), (x - 0.05, 0.85), (x - 0.22, 0.85))
        ImageDraw.Draw(ray).polygon(shape, fill=26)
        canvas.image.paste((210, 240, 255), mask=ray)
    canvas.gradient(_vary(rng, (176, 160, 112)), _vary(rng, (140, 124, 84)), 0.86, 1)
    for x in rng.uniform(0, 1, 9):
        sway, tall = rng.uniform(0, 6), rng.uniform(0.15, 0.4)
        y = np.linspace(0.9, 0.9 - tall, 8)
        weed = list(zip(x + 0.015 * np.sin(30 * y + sway), y, strict=True))
        canvas.line(weed, _vary(rng, (30, 125, 80), 20), 0.022)
    for x in rng.uniform(0.05, 0.95, 4):
        coral = _vary(rng, (225, 95, 110), 30)
        for angle in np.linspace(-2.4, -0.7, 4):
            tip = (x + 0.06 * np.cos(angle), 0.92 + 0.13 * np.sin(angle))
            canvas.line([(x, 0.93), tip], coral, 0.022)
    for x, y in rng.uniform(0.02, 0.8, (14, 2)):
        canvas.disc(x, y, rng.uniform(0.008, 0.018), (170, 220, 240))


def _stage(canvas: Canvas, rng: np.random.Generator) -> None:
    red = np.array(_vary(rng, (150, 22, 34)))
    for fold, x in enumerate(np.arange(0, 1, 0.04)):
        shade = 0.75 + 0.25 * np.sin(1.9 * fold)
        canvas.box(x, 0, x + 0.04, 0.74, tuple(int(value) for value in red * shade))
    for x in np.arange(0.05, 1, 0.1):
        canvas.disc(x, 0.0, 0.085, tuple(int(value) for value in red * 0.7))
    canvas.gradient(_vary(rng, (150, 100, 58)), _vary(rng, (98, 62, 36)), 0.74, 1)
    for y in np.arange(0.78, 1, 0.05):
        canvas.line([(0, y), (1, y)], (84, 52, 30), 0.008)
    for x in rng.uniform(0.15, 0.85, 2):
        light = Image.new("L", canvas.image.size, 0)
        shape = canvas.points((x - 0.03, 0), (x + 0.03, 0), (x + 0.2, 0.86), (x - 0.2, 0.86))
        ImageDraw.Draw(light).polygon(shape, fill=60)
        canvas.image.paste((255, 240, 200), mask=light)
        canvas.disc(x, 0.87, 0.22, (205, 160, 108), flat=0.22)


def _meadow(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(_vary(rng, (105, 175, 240)), (200, 228, 250), 0, 0.6)
    for x, y in rng.uniform((0, 0.06), (1, 0.26), (3, 2)):
        for part in range(4):
            canvas.disc(x + 0.045 * part, y + rng.uniform(-0.02, 0.02), 0.045, (250, 250, 252))
    canvas.hill(rng, 0.58, 0.14, _vary(rng, (110, 170, 75)))
    canvas.hill(rng, 0.68, 0.08, _vary(rng, (92, 158, 58)))
    canvas.grain(rng, 0.09, 0.012, 0.62, 1)
    for x, y in rng.uniform((0, 0.68), (1, 1), (45, 2)):
        petals = ((250, 250, 250), (245, 220, 70), (225, 80, 90), (190, 110, 210))
        canvas.disc(x, y, 0.011, petals[int(rng.integers(4))])
    if rng.random() < 0.5:
        for x in np.arange(0.02, 1, 0.09):
            canvas.box(x, 0.52, x + 0.018, 0.64, (226, 216, 196))
        canvas.box(0, 0.55, 1, 0.57, (226, 216, 196))


def _library(canvas: Canvas, rng: np.random.Generator) -> None:
    wood = _vary(rng, (104, 68, 40))
    canvas.gradient(wood, tuple(int(0.8 * value) for value in wood), 0, 1)
    spines = (
        (150, 45, 40),
        (40, 75, 120),
        (55, 100, 62),
        (170, 130, 60),
        (90, 50, 95),
        (200, 185, 150),
    )
    for shelf in np.arange(0.02, 0.74, 0.19):
        canvas.box(0, shelf, 1, shelf + 0.16, (48, 32, 22))
        x = 0.01
        while x < 0.99:
            wide, tall = rng.uniform(0.014, 0.03), rng.uniform(0.1, 0.15)
            if rng.random() < 0.93:
                colour = _vary(rng, spines[int(rng.integers(6))], 18)
                canvas.box(x, shelf + 0.16 - tall, x + wide - 0.004, shelf + 0.16, colour)
            x += wide
    canvas.gradient(_vary(rng, (142, 98, 60)), _vary(rng, (112, 74, 44)), 0.8, 1)
    canvas.area([(0.15, 1), (0.25, 0.86), (0.75, 0.86), (0.85, 1)], _vary(rng, (120, 40, 48)))


def _moon(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient((6, 6, 16), _vary(rng, (18, 18, 38), 8), 0, 0.7)
    for x, y in rng.uniform((0, 0), (1, 0.68), (90, 2)):
        bright = int(rng.uniform(120, 255))
        canvas.disc(x, y, rng.uniform(0.003, 0.008), (bright, bright, bright))
    x, y = rng.uniform((0.12, 0.1), (0.88, 0.25))
    canvas.disc(x, y, 0.11, (50, 110, 190))
    canvas.disc(x - 0.03, y - 0.02, 0.045, (70, 150, 85), flat=0.7)
    canvas.disc(x + 0.04, y + 0.04, 0.035, (225, 235, 240), flat=0.4)
    canvas.hill(rng, 0.72, 0.06, _vary(rng, (128, 128, 134)))
    for x, y in rng.uniform((0, 0.76), (1, 0.98), (9, 2)):
        radius = rng.uniform(0.03, 0.075)
        canvas.disc(x, y, radius, (158, 158, 164), flat=0.45)
        canvas.disc(x, y + 0.008, radius * 0.85, (92, 92, 98), flat=0.42)
    canvas.grain(rng, 0.07, 0.02, 0.68, 1)


def _stadium(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(_vary(rng, (70, 76, 96)), _vary(rng, (96, 100, 118)), 0, 0.46)
    for y in np.arange(0.1, 0.42, 0.035):
        for x in np.arange(rng.uniform(0, 0.02), 1, 0.026):
            if rng.random() < 0.85:
                colours = ((220, 60, 60), (240, 240, 240), (60, 90, 200), (240, 200, 80))
                canvas.disc(x, y, 0.014, _vary(rng, colours[int(rng.integers(4))], 25))
    canvas.box(0, 0.43, 1, 0.52, _vary(rng, (225, 228, 235)))
    for stripe, left in enumerate(np.arange(-0.5, 1.5, 0.2)):
        green = (64, 148, 62) if stripe % 2 else (78, 168, 72)
        foot = 0.5 + (left - 0.5) * 1.5
        shape = [(left, 0.52), (left + 0.2, 0.52), (foot + 0.3, 1), (foot, 1)]
        canvas.area(shape, _vary(rng, green, 5))
    canvas.line([(0, 0.6), (1, 0.6)], (240, 245, 240), 0.014)
    canvas.line([(0.5, 0.6), (0.5, 1)], (240, 245, 240), 0.014)
    goal = rng.choice([0.08, 0.74])
    frame = [(goal, 0.6), (goal, 0.4), (goal + 0.18, 0.4), (goal + 0.18, 0.6)]
    canvas.line(frame, (250, 250, 250), 0.02)
    canvas.grain(rng, 0.05, 0.012, 0.53, 1)


PAINTERS: dict[str, Painter] = {
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "kitchen": _kitchen,
    "snow": _snow,
    "desert": _desert,
    "underwater": _underwater,
    "stage": _stage,
    "meadow": _meadow,
    "library": _library,
    "moon": _moon,
    "stadium": _stadium,
}
