"""Actions as paths: where an actor is, how large and how turned, in each frame."""

from dataclasses import dataclass

import numpy as np

_SECONDS_PER_TURN = 1.1


@dataclass(frozen=True)
class Path:
    """Place (0 to 1 across and down), size factor and angle (degrees) for each of T frames."""

    x: np.ndarray  # (T,)
    y: np.ndarray  # (T,)
    scale: np.ndarray  # (T,)
    angle: np.ndarray  # (T,)
    facing_left: bool = False


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
