"""What the items of a cart cost, in cents."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """So many pieces of something, at a price in cents each."""

    name: str
    price: int
    quantity: int = 1


def subtotal(items: list[Item]) -> int:
    """Return the price of all items before any discount."""
    return sum(item.price for item in items)


def total(items: list[Item], discount_percent: int = 0) -> int:
    """Return what is to be paid, rounded down to whole cents."""
    if not 0 <= discount_percent <= 100:
        raise ValueError(f"a discount is between 0 and 100 percent, not {discount_percent}")
    return subtotal(items) * (100 - discount_percent) // 100
