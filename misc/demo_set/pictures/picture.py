"""Renders the frames of a clip: backdrop, board, actors, distractors, shaking camera, noise."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from misc.demo_set.pictures.backdrops import paint_backdrop
from misc.demo_set.pictures.figures import PAINT, draw_figure
from misc.demo_set.pictures.lettering import draw_board
from misc.demo_set.plan import Actor, Plan, generator

WIDTH, HEIGHT = 160, 120
_MARGIN = 6  # the backdrop reaches beyond the frame, so that the camera can shake
_GRAIN_ROOM = 32
_SECONDS_PER_TURN = 1.1
_ACTOR_SIDE = {"small": 34, "medium": 46, "big": 60}  # pixels


@dataclass(frozen=True)
class Path:
    """Place (0 to 1 across and down), size factor and angle (degrees) for each of T frames."""

    x: np.ndarray  # (T,)
    y: np.ndarray  # (T,)
    scale: np.ndarray  # (T,)
    angle: np.ndarray  # (T,)
    facing_left: bool = False


@dataclass(frozen=True)
class _Sprite:
    """An actor on its way, with the pictures of it that were made so far."""

    picture: Image.Image
    side: int
    path: Path

    def paste(self, frame: Image.Image, time: int) -> None:
        path = self.path
        side = max(4, round(self.side * float(path.scale[time])))
        figure = self.picture.resize((side, side), Image.Resampling.BILINEAR)
        if path.angle[time]:
            angle = float(path.angle[time])
            figure = figure.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        left = round(float(path.x[time]) * WIDTH - figure.width / 2)
        top = round(float(path.y[time]) * HEIGHT - figure.height / 2)
        frame.paste(figure, (left, top), figure)


def render(plan: Plan, seed: int) -> np.ndarray:
    """Render a clip as uint8 frames (T, HEIGHT, WIDTH, 3)."""
    rng = generator(seed, "picture", plan.number)
    size = (WIDTH + 2 * _MARGIN, HEIGHT + 2 * _MARGIN)
    exposure = _exposure(rng)
    backdrop = _expose(paint_backdrop(plan.scene, *size, rng), exposure)
    board = _expose(draw_board(plan.written, rng), exposure) if plan.written else None
    title = rng.random() < 0.4
    place = _board_place(board, rng, title=title) if board else (0, 0)
    if board and not title:
        backdrop.paste(board, (place[0] + _MARGIN, place[1] + _MARGIN))
    sprites = _sprites(plan, exposure, rng)
    drifters = _drifters(rng, plan.num_frames)
    camera = _shake(rng, plan.num_frames)
    film = _film(rng)
    frames = np.empty((plan.num_frames, HEIGHT, WIDTH, 3), np.uint8)
    for time, (across, down) in enumerate(camera):
        frame = backdrop.crop((across, down, across + WIDTH, down + HEIGHT))
        pencil = ImageDraw.Draw(frame)
        for places, radius, colour in drifters:
            x, y = places[time]
            pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        for sprite in sprites:
            sprite.paste(frame, time)
        if board and title:
            frame.paste(board, place)
        frames[time] = np.asarray(_add_grain(frame, film, rng))
    return frames


def _sprites(plan: Plan, exposure: np.ndarray, rng: np.random.Generator) -> list[_Sprite]:
    path = make_path(plan.action, plan.num_frames, plan.seconds, rng)
    sprites = [_sprite(plan.actor, path, exposure, rng)]
    if plan.second:
        second = follow(path, rng) if plan.second_role == "follows" else stand(path, rng)
        sprites.insert(0, _sprite(plan.second, second, exposure, rng))
    return sprites


def make_path(action: str, num_frames: int, seconds: float, rng: np.random.Generator) -> Path:
    """Draw the path of one action; place, speed and phase differ from clip to clip."""
    time = np.linspace(0, 1, num_frames)
    zero = np.zeros(num_frames)
    one = np.ones(num_frames)
    x0, y0 = rng.uniform(0.3, 0.7), rng.uniform(0.56, 0.7)
    turns = seconds / _SECONDS_PER_TURN * rng.uniform(0.7, 1.2)
    wave = 2 * np.pi * (turns * time + rng.random())
    facing_left = bool(rng.random() < 0.5)
    x, y, scale, angle = x0 * one, y0 * one, one, zero
    if action in ("right", "left"):
        x = rng.uniform(-0.1, 0.15) + time * rng.uniform(0.8, 1.05)
        y = y0 - 0.03 * np.abs(np.sin(1.7 * wave))
        x, facing_left = (x, False) if action == "right" else (1 - x, True)
    elif action == "jump":
        y = y0 + 0.08 - rng.uniform(0.28, 0.4) * np.abs(np.sin(wave / 2 + wave[0] * 0))
        x = x0 + 0.1 * (time - 0.5) * rng.uniform(-1, 1)
    elif action == "circle":
        direction, radius = rng.choice([-1, 1]), rng.uniform(0.2, 0.27)
        x, y = (
            0.5 + 0.8 * radius * np.cos(wave * direction),
            0.5 + radius * np.sin(wave * direction),
        )
    elif action == "spin":
        angle = np.degrees(wave) * rng.choice([-1, 1])
    elif action == "shake":
        x = x0 + rng.uniform(-0.025, 0.025, num_frames)
        y = y0 + rng.uniform(-0.03, 0.03, num_frames)
        angle = rng.uniform(-9, 9, num_frames)
    elif action in ("grow", "shrink"):
        scale = rng.uniform(0.35, 0.5) + time * rng.uniform(1.1, 1.4)
        scale = scale if action == "grow" else scale[::-1]
        y = y0 - 0.08 * one
    elif action in ("fall", "rise"):
        drops = time * rng.uniform(1.0, 1.9) % 1.0
        y = -0.2 + 1.4 * drops
        x = x0 + 0.03 * np.sin(wave)
        y = y if action == "fall" else 1 - y
    elif action == "swing":
        x = x0 + rng.uniform(0.13, 0.2) * np.sin(wave)
        y = y0 - 0.1 + 0.06 * np.cos(wave) ** 2
        angle = 28 * np.sin(wave)
    else:
        assert action == "zigzag", action
        x = rng.uniform(0.1, 0.2) + time * rng.uniform(0.6, 0.75)
        y = 0.52 + rng.uniform(0.16, 0.24) * (2 / np.pi) * np.arcsin(np.sin(1.2 * wave))
        x, facing_left = (1 - x, True) if facing_left else (x, False)
    return Path(x, y, scale, angle, facing_left)


def follow(path: Path, rng: np.random.Generator) -> Path:
    """Make the path of an actor who comes some frames after another."""
    late = int(rng.integers(4, 8))
    behind = np.maximum(np.arange(len(path.x)) - late, 0)
    gap = 0.16 if path.facing_left else -0.16
    up = rng.uniform(-0.08, 0.08)
    one = np.ones(len(path.x))
    return Path(path.x[behind] + gap, path.y[behind] + up, 0.8 * one, 0 * one, path.facing_left)


def stand(path: Path, rng: np.random.Generator) -> Path:
    """Make the path of an actor who stays at the side, away from another."""
    left = path.x.mean() > 0.5
    x = rng.uniform(0.1, 0.22) if left else rng.uniform(0.78, 0.9)
    time = np.arange(len(path.x))
    breath = 0.008 * np.sin(time * rng.uniform(0.5, 1.0))
    one = np.ones(len(path.x))
    y = rng.uniform(0.6, 0.78) + breath
    return Path(x * one, y, 0.8 * one, 0 * one, facing_left=not left)


def _sprite(actor: Actor, path: Path, exposure: np.ndarray, rng: np.random.Generator) -> _Sprite:
    side = round(_ACTOR_SIDE[actor.size] * rng.uniform(0.9, 1.1))
    largest = round(side * float(path.scale.max()))
    picture = draw_figure(actor.kind, actor.colour)
    picture = _expose(picture.resize((largest, largest), Image.Resampling.LANCZOS), exposure)
    if path.facing_left:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _Sprite(picture, side, path)


def _board_place(board: Image.Image, rng: np.random.Generator, *, title: bool) -> tuple[int, int]:
    """Choose the left upper corner: titles stand in the middle, boards anywhere above."""
    if title:
        bottom = rng.random() < 0.6
        return (WIDTH - board.width) // 2, HEIGHT - board.height - 5 if bottom else 5
    left = int(rng.integers(2, max(3, WIDTH - board.width - 2)))
    return left, int(rng.integers(5, 24))


def _drifters(
    rng: np.random.Generator, num_frames: int
) -> list[tuple[np.ndarray, float, tuple[int, int, int]]]:
    """Make small dots that drift through the picture and mean nothing."""
    drifters = []
    colours = list(PAINT.values())
    for _ in range(int(rng.integers(0, 4))):
        start, speed = rng.uniform((0, 0), (WIDTH, HEIGHT)), rng.normal(0, 1.5, 2)
        places = start + speed * np.arange(num_frames)[:, None]
        radius = float(rng.uniform(1.5, 3.5))
        drifters.append((places, radius, colours[int(rng.integers(len(colours)))]))
    return drifters


def _shake(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Return the camera's corner in each frame, (T, 2) integers within the margin."""
    strength = float(rng.choice([0.0, 0.4, 1.2]))
    steps = rng.normal(0, strength, (num_frames, 2))
    walk = np.zeros(2)
    corners = []
    for step in steps:
        walk = 0.8 * walk + step  # pulled back to the middle, as a hand does
        corners.append(np.clip(np.round(walk) + _MARGIN, 0, 2 * _MARGIN))
    return np.array(corners, dtype=int)


def _exposure(rng: np.random.Generator) -> np.ndarray:
    """Draw one factor for each channel: exposure and tint of a clip."""
    return rng.uniform(0.85, 1.1) * rng.uniform(0.96, 1.04, 3)


def _expose(picture: Image.Image, exposure: np.ndarray) -> Image.Image:
    """Apply exposure and tint to a picture, its transparency excepted."""
    factors = np.ones(len(picture.getbands()))
    factors[:3] = exposure
    table = np.clip(np.outer(factors, np.arange(256)), 0, 255)
    return picture.point(table.astype(int).ravel().tolist())


def _film(rng: np.random.Generator) -> Image.Image:
    """Make a large field of noise around 128, to be cut at another place for every frame."""
    noise = rng.normal(128, rng.uniform(2, 8), (HEIGHT + _GRAIN_ROOM, WIDTH + _GRAIN_ROOM))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).convert("RGB")


def _add_grain(frame: Image.Image, film: Image.Image, rng: np.random.Generator) -> Image.Image:
    left, top = (int(place) for place in rng.integers(0, _GRAIN_ROOM, 2))
    piece = film.crop((left, top, left + WIDTH, top + HEIGHT))
    return ImageChops.add(frame, piece, offset=-128)
