"""What the models cost: invented, but always the same."""

from __future__ import annotations

import hashlib

from sandbox.answers import Json
from sandbox.catalog import Model

# What the models are billed by, and how much of it a call used to take.
UNITS = {"image": ("image", 1), "video": ("seconds", 5), "speech": ("1000 characters", 2)}
# That some have no price is not documented, but a model may come from anybody. [?]
UNPRICED = {"fal-ai/kolors", "fal-ai/stable-video"}

CURRENCY = "USD"


def is_priced(model: Model) -> bool:
    return model.endpoint_id not in UNPRICED


def unit_of(model: Model) -> tuple[str, int]:
    """The unit, and how many of it a call takes."""
    return UNITS.get(model.category.split("-")[-1], ("request", 1))


def unit_price(model: Model) -> float:
    digest = hashlib.sha256(model.endpoint_id.encode()).digest()
    cents = 1 + digest[0] % 40
    return cents / 100


def price(model: Model) -> dict[str, Json]:
    """A row of the price list."""
    unit, _ = unit_of(model)
    return {
        "endpoint_id": model.endpoint_id,
        "unit_price": unit_price(model),
        "unit": unit,
        "currency": CURRENCY,
    }
